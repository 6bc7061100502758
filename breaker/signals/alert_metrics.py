"""
Alert metrics: the way to on-call is watched as well.

What fires is exported by whoever judges it: the steward for all, and a replica that has lost its store for itself. What is
delivered is counted by whoever delivers. So these are summed over replicas.
"""

import time
from collections.abc import Collection, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from breaker.core.alert_table import ALERTS
from breaker.core.events import LetterEnded
from breaker.signals.series import Add

RESULTS = ("ok", "retry", "failed")


class AlertMetrics:
    """All that is exported of alerts by one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._firing = Gauge(
            "breaker_alerts_firing", "Incidents that fire, as judged by this replica.",
            ["alert", "severity"], registry=registry,
        )  # fmt: skip
        self._deliveries = Counter(
            "breaker_alert_deliveries_total", "Attempts to bring a message to a channel; `failed` are not tried again.",
            ["channel", "result"], registry=registry,
        )  # fmt: skip
        self._outbox = Gauge(
            "breaker_alert_outbox", "Messages that this replica has to bring and that are not delivered yet.",
            ["channel"], registry=registry,
        )  # fmt: skip
        self._last = Gauge(
            "breaker_alert_last_delivery_timestamp_seconds", "When this replica last delivered a message; 0 before.",
            ["channel"], registry=registry,
        )  # fmt: skip
        for alert in ALERTS:
            self._firing.labels(alert.name, alert.severity).set(0)
        self._series: dict[str, dict[str, Add]] = {}

    def configured(self, channels: Collection[str]) -> None:
        """These channels exist from now on, no others."""
        for name in self._series.keys() - set(channels):
            for result in self._series.pop(name):
                self._deliveries.remove(name, result)
            self._outbox.remove(name)
            self._last.remove(name)
        for name in channels:
            if name not in self._series:
                self._series[name] = {result: self._deliveries.labels(name, result).inc for result in RESULTS}
                self._outbox.labels(name).set(0)
                self._last.labels(name).set(0)

    def listen(self, event: LetterEnded) -> None:
        """Count what happened; a channel that a reload took away is left out."""
        if series := self._series.get(event.channel):
            series[event.result](1)
            if event.result == "ok":
                self._last.labels(event.channel).set(time.time())

    def observe(self, firing: Mapping[tuple[str, str], int], outbox: Mapping[str, int]) -> None:
        """
        What fires, and what waits.

        Args:
            firing: By name and severity; what is not in it does not fire.
            outbox: By channel.

        """
        for alert in ALERTS:
            key = (alert.name, str(alert.severity))
            self._firing.labels(*key).set(firing.get(key, 0))
        for name in self._series:
            self._outbox.labels(name).set(outbox.get(name, 0))
