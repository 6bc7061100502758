"""
Job pages: what a caller may do with its jobs.

    GET    /v1/jobs/{id}          where it stands; `?wait=N` holds until it has ended; ETag
    GET    /v1/jobs/{id}/result   the downstream's own answer
    DELETE /v1/jobs/{id}          cancel it, while it waits

A caller sees its own jobs only: another's is as good as none.
"""

import re
from collections.abc import Callable
from hashlib import blake2b
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from breaker.core.errors import StoreError
from breaker.core.jobs import JobRecord, JobState
from breaker.gateway.call import Kind, Refusal
from breaker.gateway.job_ends import end_of
from breaker.gateway.job_payload import JobResult, Kept
from breaker.gateway.receipts import Receipts
from breaker.gateway.refusals import degraded, no_answer
from breaker.gateway.site import Site
from breaker.gateway.vault import Unreadable, Vault
from breaker.gateway.work import Work
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore
from breaker.web.identity import Identity
from breaker.web.job_documents import document, poll_s
from breaker.web.problems import CLOCK

PREFIX = "/v1/jobs/"
ID = re.compile(r"([a-z0-9.-]+)~([0-9A-HJKMNP-TV-Z]{26})\Z")
RESULT = "/result"
WAIT_MAX_S = 60
SECONDS = re.compile(r"0*(\d{1,9})\Z", re.ASCII)
METHODS = ("GET", "HEAD", "DELETE")
JSON = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"

Shown = tuple[int, bytes, bytes]


class JobPages:
    """
    All jobs of the operations in force; `site` is looked up per request, since a reload swaps it.

    Args:
        on_ended: Told that a job of this operation has ended here.

    """

    def __init__(
        self,
        jobs: JobStore,
        desk: JobDesk,
        vault: Callable[[], Vault],
        receipts: Receipts,
        on_ended: Callable[[str], None],
    ) -> None:
        self._jobs, self._desk, self._vault, self._receipts = jobs, desk, vault, receipts
        self._on_ended = on_ended

    async def answer(
        self, site: Site, identity: Identity, method: str, path: str, query: str, headers: Any
    ) -> Shown | Refusal:
        """Status, header lines and body; or why not."""
        text = unquote(path.removeprefix(PREFIX))
        is_result = text.endswith(RESULT)
        found = ID.match(text.removesuffix(RESULT))
        work = site.works.get(found[1]) if found else None
        if method not in METHODS or (is_result and method == "DELETE"):
            allow = "GET, HEAD" if is_result else ", ".join(METHODS)
            return Refusal(
                kind=Kind.METHOD_NOT_ALLOWED, detail=f"a job takes {allow}, not {method}",
                headers=f"Allow: {allow}\r\n".encode(),
            )  # fmt: skip
        if not found or work is None or not identity.may_call(work.operation.name):
            return no_job(text)
        try:
            if method == "DELETE":
                return await self._cancel(work, identity, found[2])
            record = await self._record(work, identity, found[2], wait_of(query))
        except StoreError as exc:
            return degraded(f"the job cannot be looked up now: {exc}")
        if record is None:
            return no_job(text)
        return self._result(work, record) if is_result else self._show(work, record, headers)

    async def _record(self, work: Work, identity: Identity, job: str, wait_s: int) -> JobRecord | None:
        name = work.operation.name
        if wait_s:
            return await end_of(self._jobs, self._desk, name, job, wait_s, caller=identity.id)
        record = await self._desk.show(name, job)
        return record if record and record.head.caller == identity.id else None

    def _show(self, work: Work, record: JobRecord, headers: Any) -> Shown:
        receipt = self._receipts.of_record(work, record)
        status = None
        if record.head.state.is_ended:
            try:
                kept = self._kept(work, record)
                status = (kept.status or None) if kept else None
            except Unreadable:
                status = None
        body = orjson.dumps(document(receipt, record.head, status=status))
        tag = f'"{blake2b(body, digest_size=8).hexdigest()}"'.encode()
        lines = JSON + CLOCK.line() + b"ETag: %b\r\n" % tag
        known = headers.get("If-None-Match", "").encode("utf-8", "surrogateescape")
        if tag in known or known.strip() == b"*":
            return HTTPStatus.NOT_MODIFIED, lines, b""
        return HTTPStatus.OK, lines, body

    def _kept(self, work: Work, record: JobRecord) -> JobResult | None:
        stored = record.answer if record.head.state.keeps_payload else record.body
        return self._vault().result(work.operation.name, record.head, stored)

    def _result(self, work: Work, record: JobRecord) -> Shown | Refusal:
        head, name = record.head, f"{work.operation.name}~{record.head.id}"
        if not head.state.is_ended:
            receipt = self._receipts.of_record(work, record)
            lines = JSON + CLOCK.line() + b"Retry-After: %d\r\n" % poll_s(receipt)
            return HTTPStatus.ACCEPTED, lines, orjson.dumps(document(receipt, head))
        try:
            result = self._kept(work, record)
        except Unreadable as exc:
            return Refusal(
                kind=Kind.RESULT_EXPIRED, extra={"job": name, "state": head.state},
                detail=f"the answer is kept, but cannot be read: {exc}",
            )  # fmt: skip
        if head.state is JobState.UNKNOWN:
            return Refusal(
                kind=Kind.OUTCOME_UNKNOWN,
                detail=f"whether {name} was executed is not known",
                extra={"job": name},
            )
        if result is None or not result.status or result.kept is not Kept.WHOLE:
            return no_answer(name, head, result)
        return result.status, lines_of(work, result), result.body

    async def _cancel(self, work: Work, identity: Identity, job: str) -> Shown | Refusal:
        name = work.operation.name
        record = await self._desk.show(name, job)
        if record is None or record.head.caller != identity.id:
            return no_job(f"{name}~{job}")
        state = await self._desk.cancel(name, job)
        if state is None:
            return no_job(f"{name}~{job}")
        if state is not JobState.CANCELLED:
            return Refusal(
                kind=Kind.NOT_CANCELLABLE, extra={"job": f"{name}~{job}", "state": state},
                detail=f"{name}~{job} is {state}: only a job that waits can be cancelled",
            )  # fmt: skip
        self._on_ended(name)
        now = await self._desk.show(name, job)
        shown = now or record
        told = document(self._receipts.of_record(work, shown), shown.head)
        return HTTPStatus.OK, JSON + CLOCK.line(), orjson.dumps(told)


def lines_of(work: Work, result: JobResult) -> bytes:
    """The header lines of an answer that was kept; its own `Date` says when it was given."""
    date = b"" if any(name.lower() == b"date" for name, _ in result.headers) else CLOCK.line()
    passed = work.up.lines(result.headers)
    return passed + date + b"Breaker-Outcome: forwarded\r\n"


def no_job(text: str) -> Refusal:
    return Refusal(
        kind=Kind.JOB_NOT_FOUND,
        detail=f"there is no job {text[:120]!r} of yours: it never was, or its record is not kept any longer",
    )


def wait_of(query: str) -> int:
    """Seconds of `?wait=N`; what is not a number does not wait."""
    values = parse_qs(query.lstrip("?")).get("wait", ["0"])
    found = SECONDS.match(values[0])
    return min(WAIT_MAX_S, int(found[1])) if found else 0
