"""
Alerts by hand: what fires and who was told, acknowledge, silence, and test a channel.

What the steward judges is read from the store, so every replica answers alike; what only this replica says of its store
stands beside it. Acknowledgements and silences take effect with the steward's next round, within seconds.
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from breaker.core.alert_policy import Alerting
from breaker.core.alert_table import ALERTS
from breaker.core.alerts import Incident, Stage
from breaker.core.errors import StoreError
from breaker.core.notice import notice_of
from breaker.core.notify import TRUE_US, Ack, Kind, Said, Silence, is_inhibited
from breaker.policy.words import did_you_mean
from breaker.signals.alert_text import text_of
from breaker.signals.channels import Answer, Message, Never, Taken
from breaker.store.alert_book import SILENCES_MAX, Book, Entry
from breaker.web.admin_audit import Change
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields, body_of
from breaker.web.admin_problems import AdminProblem
from breaker.web.admin_reply import as_json
from breaker.web.admin_views import moment
from breaker.web.operators import PERSON

LONGEST_MS = 30 * 86_400_000
PATTERN_MAX = 200
NAMES = tuple(dict.fromkeys(alert.name for alert in ALERTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """The routes below `alerts` and `silences`."""

    controls: Controls

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/alerts", self.listed),
            web.post("/alerts/test", self.tested),
            web.post("/alerts/{incident}/ack", self.acknowledged),
            web.get("/silences", self.silences),
            web.post("/silences", self.silenced),
            web.delete("/silences/{silence}", self.unsilenced),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        fields = Fields(request.query, "pending")
        controls, now_us = self.controls, self.controls.now_us()
        try:
            book: Book | None = await controls.book.load()
        except StoreError:
            book = None  # what this replica says by itself is of use without
        said = book.said if book else Said()
        told = [*(book.living.values() if book else ()), *controls.own_incidents()]
        firing = [incident for incident in told if incident.stage is Stage.FIRING]
        shown = [incident for incident in told if incident.stage is Stage.FIRING or fields.flag("pending")]
        return as_json(
            {
                "alerts": [
                    incident_view(incident, firing, said, controls.alerting(), controls.cluster, now_us)
                    for incident in sorted(shown, key=rank)
                ],
                "outbox": [entry_view(entry) for entry in book.outbox.values()] if book else None,
                "channels": sorted(controls.alerting().channels),
                "store": "answers"
                if book
                else "does not answer: only what this replica itself says is shown",
            }
        )

    async def tested(self, request: web.Request) -> web.Response:
        fields = Fields(await body_of(request), "channel", "reason")
        channels = self.controls.alerting().channels
        name, reason = fields.text("channel"), fields.text("reason") or "a test"
        if name and name not in channels:
            raise AdminProblem(404, f"unknown channel '{name}'{did_you_mean(name, list(channels))}")
        if not channels:
            raise AdminProblem(409, "no channel is configured: see `alerts.channels` in gateway.yaml")
        names = [name] if name else list(channels)
        async with Change(
            self.controls, request[PERSON], "alerts.test", reason=reason, asked={"channels": names}
        ) as change:
            answers = await asyncio.gather(*(self.controls.test_channel(channel) for channel in names))
            found = {channel: answer_view(answer) for channel, answer in zip(names, answers, strict=True)}
            change.outcome = ", ".join(f"{channel}: {answer['result']}" for channel, answer in found.items())
        return as_json({"channels": found})

    async def acknowledged(self, request: web.Request) -> web.Response:
        fields = Fields(await body_of(request), "reason")
        id_, reason, controls = request.match_info["incident"], fields.reason(), self.controls
        book = await controls.book.load()
        incident = book.living.get(id_)
        if incident is None:
            raise AdminProblem(404, f"no incident '{id_}'{did_you_mean(id_, list(book.living))}")
        person = request[PERSON]
        async with Change(
            controls,
            person,
            "alerts.ack",
            operation=incident.operation,
            reason=reason,
            asked={"incident": id_},
        ):
            ack = Ack(since_us=incident.since_us, author=person.id, reason=reason, at_us=controls.now_us())
            await controls.book.acknowledge(id_, ack)
        said = Said(acks={**book.said.acks, id_: ack}, silences=book.said.silences)
        firing = [other for other in book.living.values() if other.stage is Stage.FIRING]
        return as_json(
            incident_view(incident, firing, said, controls.alerting(), controls.cluster, controls.now_us())
        )

    async def silences(self, request: web.Request) -> web.Response:
        Fields(request.query)
        now_us = self.controls.now_us()
        said = await self.controls.book.said()
        alive = [silence for silence in said.silences if silence.until_us > now_us]
        return as_json({"silences": [silence_view(silence) for silence in alive]})

    async def silenced(self, request: web.Request) -> web.Response:
        fields = Fields(await body_of(request), "alert", "operation", "reason", "expires_in")
        alert, operation = fields.text("alert") or "*", fields.text("operation") or "*"
        reason, length_us, controls = fields.reason(), fields.duration_us("expires_in"), self.controls
        if alert == "*" and operation == "*":
            raise AdminProblem(
                422, "'alert' or 'operation' is missing: everything at once cannot be silenced"
            )
        if max(len(alert), len(operation)) > PATTERN_MAX:
            raise AdminProblem(422, f"'alert' and 'operation' have {PATTERN_MAX} characters at most")
        if "*" not in alert and alert not in NAMES:
            raise AdminProblem(422, f"'alert': unknown alert '{alert}'{did_you_mean(alert, NAMES)}")
        if "*" not in operation and operation not in controls.operations():
            known = list(controls.operations())
            raise AdminProblem(422, f"'operation': unknown '{operation}'{did_you_mean(operation, known)}")
        if not 0 < length_us <= LONGEST_MS * 1_000:
            raise AdminProblem(422, "'expires_in' is missing: a silence always ends, after 30d at most")
        if len((await controls.book.said()).silences) >= SILENCES_MAX:
            raise AdminProblem(409, f"there are {SILENCES_MAX} silences: end some first")
        now_us, person = controls.now_us(), request[PERSON]
        silence = Silence(
            id=secrets.token_hex(4), alert=alert, operation=operation, author=person.id, reason=reason, from_us=now_us,
            until_us=now_us + length_us,
        )  # fmt: skip
        asked = {"alert": alert, "silence": silence.id, "until": moment(silence.until_us)}
        async with Change(
            controls, person, "alerts.silence", operation="" if "*" in operation else operation, reason=reason,
            asked={**asked, "operation": operation},
        ):  # fmt: skip
            await controls.book.silence(silence)
        return as_json(silence_view(silence))

    async def unsilenced(self, request: web.Request) -> web.Response:
        fields = Fields(await body_of(request) if request.can_read_body else request.query, "reason")
        id_, reason = request.match_info["silence"], fields.reason()
        said = await self.controls.book.said()
        known = [silence.id for silence in said.silences]
        if id_ not in known:
            raise AdminProblem(404, f"no silence '{id_}'{did_you_mean(id_, known)}")
        async with Change(
            self.controls, request[PERSON], "alerts.unsilence", reason=reason, asked={"silence": id_}
        ):
            await self.controls.book.end_silence(id_)
        return as_json({"id": id_, "ended": True})


def rank(incident: Incident) -> tuple[bool, int, int]:
    """Firing before pending, worse before better, older before newer."""
    severities = ("critical", "warning", "none")
    return (incident.stage is not Stage.FIRING, severities.index(incident.severity), incident.since_us)


def incident_view(
    incident: Incident, firing: list[Incident], said: Said, alerting: Alerting, cluster: str, now_us: int
) -> dict[str, Any]:
    """One incident, with why nobody is told where that is so."""
    notice = notice_of(incident, alerting, cluster)
    ack = said.acks.get(incident.id)
    silence = next((one for one in said.silences if one.covers(incident, now_us)), None)
    message = Message(id=incident.id, cluster=cluster, kind=Kind.FIRING, notices=(notice,), made_us=now_us)
    return {
        "id": incident.id,
        "alert": incident.row.name,
        "severity": str(incident.severity),
        "stage": str(incident.stage),
        "operation": incident.operation or None,
        "team": incident.team or None,
        "since": moment(incident.since_us),
        "fired": moment(incident.fired_us),
        "is_true": now_us - incident.true_us < TRUE_US,
        "labels": dict(notice.labels),
        "annotations": dict(notice.annotations),
        "told": {channel: moment(at_us) for channel, at_us in incident.told.items()},
        "acknowledged": {"author": ack.author, "reason": ack.reason, "at": moment(ack.at_us)}
        if ack and ack.since_us == incident.since_us
        else None,
        "silenced_by": silence.id if silence else None,
        "inhibited": is_inhibited(incident, firing),
        "text": text_of(message),
    }


def entry_view(entry: Entry) -> dict[str, Any]:
    """A message that is not delivered yet."""
    letter = entry.letter
    return {
        "id": letter.id,
        "channel": letter.channel,
        "kind": str(letter.kind),
        "incidents": [incident.id for incident in letter.incidents],
        "made": moment(letter.made_us),
        "tries": entry.tries,
        "next_try": moment(entry.due_us),
        "detail": entry.detail or None,
    }


def silence_view(silence: Silence) -> dict[str, Any]:
    return {
        "id": silence.id,
        "alert": silence.alert,
        "operation": silence.operation,
        "author": silence.author,
        "reason": silence.reason,
        "from": moment(silence.from_us),
        "until": moment(silence.until_us),
    }


def answer_view(answer: Answer) -> dict[str, Any]:
    """What came of a test."""
    if isinstance(answer, Taken):
        return {"result": "delivered", "detail": None}
    return {"result": "refused" if isinstance(answer, Never) else "not delivered", "detail": answer.detail}
