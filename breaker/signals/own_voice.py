"""
Our own voice: what a replica says of its store while the store cannot be asked who speaks.

1. It is told after 5 s without the store: a slow fork is not worth a page.
2. All replicas that see it say the same, under the same ids. Receivers that match messages by a key (Alertmanager,
   PagerDuty) show them once, so all of them tell those. Of the others the replica whose name comes first tells them,
   the next one 30 s later, and so on: the first may be the one that was cut off from the network.
   When it is over nobody else begins.
3. What was told of the beginning is told of the end, by whoever told it. Letters live in memory until they are taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from breaker.core.alert_policy import Alerting, Channel
from breaker.core.alerts import Incident, Stage, move
from breaker.core.events import Listener
from breaker.core.notify import Desk, Said, plan
from breaker.signals.cluster_conditions import Outage, own_readings
from breaker.signals.evaluator import moved_of
from breaker.signals.outbox import Outbox
from breaker.store.alert_book import Entry

NEXT_US = 30_000_000


class OwnVoice:
    """
    What one replica says of its store.

    Attributes:
        living: Incidents that it sees.
        outbox: Its letters.

    """

    def __init__(
        self,
        *,
        cluster: str,
        outbox: Outbox,
        alerting: Callable[[], Alerting],
        rank: Callable[[], int],
        episode: Callable[[], str],
        emit: Listener,
        now_us: Callable[[], int],
    ) -> None:
        """
        Wire it.

        Args:
            rank: Of our replica among those that lived last, by name; 0 speaks first.
            episode: What all of them know alike of this outage.
            now_us: Unix time, our own.

        """
        self.living: Mapping[str, Incident] = {}
        self._cluster, self.outbox, self._alerting, self._emit = cluster, outbox, alerting, emit
        self._rank, self._episode, self._now_us = rank, episode, now_us
        self._groups: Mapping[str, int] = {}
        self._told_episode = ""

    def judge(self, outage: Outage | None, *, is_last: bool = False) -> None:
        """
        How the store is; called every second.

        Args:
            is_last: Our process ends: what is only kept, lest it flap, ends now, since nobody would say so later.

        """
        if outage is None and not self.living:
            return
        now_us, alerting = self._now_us(), self._alerting()
        if not self.living:
            self._told_episode = self._episode()  # of the beginning, for the end as well
        before = self.outbox.with_backups(self.living)
        self.outbox.backed.clear()
        keep_us = 0 if is_last else alerting.keep_ms * 1_000
        moved = move(before, own_readings(outage), now_us, keep_us)
        for incident in moved.living.values():
            was = self.living.get(incident.id)
            if incident.stage is Stage.FIRING and (was is None or was.stage is not Stage.FIRING):
                self._emit(moved_of(incident, alerting, self._cluster, is_firing=True))
        for incident in moved.ended:
            self._emit(moved_of(incident, alerting, self._cluster, is_firing=False))
        since_us = min((incident.fired_us or now_us for incident in self.living.values()), default=now_us)
        told = {
            name for incident in before.values() for name in incident.told
        }  # rule 3, whoever comes first by now
        ours = {
            name: channel
            for name, channel in alerting.channels.items()
            if name in told or (outage and self._speaks(channel, since_us, now_us))
        }
        desk = Desk(
            # At once: nobody else is waited for, and the end is told to whoever had the beginning.
            alerting=replace(alerting, channels=ours, group_wait_ms=0, group_interval_ms=0),
            episode=f"{self._told_episode or 'alone'}",
        )  # fmt: skip
        planned = plan(moved, self._groups, Said(), desk, now_us)
        self.living, self._groups = planned.living, planned.groups
        later_us = self._rank() * NEXT_US  # backups are told in our order as well
        self.outbox.post(
            Entry(letter=replace(letter, backup_us=letter.backup_us + later_us)) for letter in planned.letters
        )
        self.outbox.fires(incident for incident in self.living.values() if incident.stage is Stage.FIRING)

    def _speaks(self, channel: Channel, since_us: int, now_us: int) -> bool:
        """Rule 2."""
        return channel.has_memory or now_us - since_us >= self._rank() * NEXT_US


async def in_memory(changes: Mapping[str, Entry | None]) -> None:
    """What became of a letter is known to the outbox; there is nowhere else to write it."""
    del changes
