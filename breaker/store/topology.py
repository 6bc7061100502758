"""
Topology: the line that fits the store's address, for whoever sends whole batches of commands.
"""

from breaker.core.config import StoreSettings
from breaker.store.address import Topology, address_of
from breaker.store.cluster_line import ClusterLine
from breaker.store.connection import Line
from breaker.store.scripts import Script

AnyLine = Line | ClusterLine


def make_line(settings: StoreSettings, scripts: dict[str, Script]) -> AnyLine:
    """
    A line, not connected yet.

    Raises:
        StartError: The address cannot be understood.

    """
    if address_of(settings).topology is Topology.CLUSTER:
        return ClusterLine(settings, scripts)
    return Line(settings, scripts)
