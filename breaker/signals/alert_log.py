"""
The alert log: what fires and has ended, and whether people were told, as lines.

The replica that judged says what fires, the one that delivers says what came of it. A channel that is tried again and
again is a warning at each attempt: at most one a minute after the first few.
"""

from collections.abc import Callable

from breaker.core.events import AlertMoved, LetterEnded

LEVELS = {"ok": "info", "retry": "warning", "failed": "error"}
WORDS = {"ok": "alert_delivered", "retry": "alert_not_delivered", "failed": "alert_given_up"}


class AlertLog:
    """Listens to alerts, and tells."""

    def __init__(self, tell: Callable[..., None]) -> None:
        """
        Wire it.

        Args:
            tell: Takes level, event and fields, and writes them if the level is on.

        """
        self._tell = tell

    def listen(self, event: AlertMoved | LetterEnded) -> None:
        """Write a line."""
        match event:
            case AlertMoved():
                level, word = ("warning", "alert_firing") if event.is_firing else ("info", "alert_resolved")
                self._tell(
                    level, word, alert=event.alert, severity=event.severity, operation=event.operation,
                    incident=event.incident, detail=event.summary,
                )  # fmt: skip
            case LetterEnded():
                self._tell(
                    LEVELS[event.result], WORDS[event.result], channel=event.channel, kind=event.kind,
                    incident=event.incident, detail=event.detail,
                )  # fmt: skip
