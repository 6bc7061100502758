"""What Breaker decides: plain functions of (state, policy, now). No I/O, no clock, no chance."""
