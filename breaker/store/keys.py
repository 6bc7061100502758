"""
Keys: where things are in the store.

All keys of an operation carry its hash tag, so that each script touches one Cluster slot. The order
of `Keys.all` is that of KEYS in `lua/limits.lua`.
"""

from dataclasses import dataclass

OPERATION_KEYS = (
    "policy", "rate", "slots", "waiting", "calls", "parked", "tombs", "seen", "calendar", "periods", "q",
    "circuit",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one operation, ready to send."""

    cluster: str
    operation: str

    @property
    def prefix(self) -> str:
        return f"brk:{self.cluster}:{{{self.operation}}}:"

    @property
    def all(self) -> tuple[bytes, ...]:
        return tuple((self.prefix + name).encode() for name in OPERATION_KEYS)

    def named(self, name: str) -> str:
        """One key by its name, with a tenant behind where there is one: `slots:acme`."""
        return self.prefix + name


def cluster_key(cluster: str, name: str) -> str:
    """A key of the whole cluster, not of one operation."""
    return f"brk:{cluster}:{{cluster}}:{name}"


def wake_prefix(cluster: str) -> str:
    """The channel on which a replica hears of its grants is this and its id."""
    return f"brk:{cluster}:wake:"


def jobs_channel(cluster: str) -> str:
    """The channel on which all replicas hear that jobs could start."""
    return f"{wake_prefix(cluster)}jobs"


def audit_key(cluster: str) -> str:
    """The stream of what people changed."""
    return cluster_key(cluster, "audit")
