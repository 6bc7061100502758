"""
Breaker: a gateway that holds the capacity of a company's operations in Redis.

Start reading at `gateway/path.py`, which is what happens to a call, top to bottom.
"""

__version__ = "0.1.0"
