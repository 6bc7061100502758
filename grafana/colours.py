"""
Colours: what each means, on every dashboard.

1. This is the only place that names a colour; the lint finds others.
2. A word of a label (`refused`, `open`, `critical`) has the same colour wherever it is drawn.
3. Green goes on as it should, blue waits, orange is over capacity and goes on all the same, red was not done.
4. Names are those of Grafana's palette, which fit its light and its dark theme; shades that it lacks are hexadecimal.
"""

from collections.abc import Mapping

GOOD = "green"
WARN = "orange"
BAD = "red"
OFF = "#8e8e8e"  # switched off, or nobody's doing
LIMIT = "text"  # dark on light, light on dark
PLAIN = "#6e9fff"  # a number that is neither good nor bad

WORDS: Mapping[str, str] = {
    # Demand and capacity.
    "wanted": "purple",
    "needed": "semi-dark-orange",
    "admitted": GOOD,
    "in use": GOOD,
    "limit": LIMIT,
    "configured": OFF,
    "promise": LIMIT,
    "room for": LIMIT,
    # Outcomes of calls, and what was done with those that had no capacity.
    "forwarded": GOOD,
    "replayed": "light-green",
    "delayed": "light-blue",
    "queued": "blue",
    "over_capacity": WARN,
    "let_through": WARN,
    "refused": BAD,
    "failed": "dark-red",
    "unknown": "yellow",
    "abandoned": OFF,
    # Jobs.
    "scheduled": "super-light-blue",
    "held": "dark-blue",
    "running": GOOD,
    "dead": "dark-red",
    "accepted": "blue",
    "succeeded": GOOD,
    "expired": "light-red",
    "cancelled": OFF,
    "discarded": OFF,
    "withdrawn": OFF,
    # What the downstream made of a call.
    "ok": GOOD,
    "client_error": "light-red",
    "server_error": "dark-red",
    "timeout": "dark-orange",
    "connect_error": "semi-dark-red",
    "slow_down": "light-orange",
    "retry": "light-orange",
    # Bands, the most urgent the darkest.
    "critical": "#115e59",
    "high": "#0d9488",
    "normal": "#2dd4bf",
    "low": "#99f6e4",
    # Alerts.
    "critical alerts": BAD,
    "warning alerts": WARN,
    # Circuits.
    "closed": GOOD,
    "half-open": WARN,
    "open": BAD,
    "forced-open": "dark-red",
    "disabled": OFF,
    # Shares of a distribution.
    "p50": "#a5b4fc",
    "p90": "#818cf8",
    "p99": "#4f46e5",
    # This week against the one before.
    "this week": "purple",
    "the week before": OFF,
}

TABLE = frozenset({GOOD, WARN, BAD, OFF, LIMIT, PLAIN, "transparent", *WORDS.values()})
