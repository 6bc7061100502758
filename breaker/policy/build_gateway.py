"""
The process: from `gateway.yaml` to core types, with what only shows across fields and files.

Paths to other files are relative to the folder of `gateway.yaml`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from breaker.core.config import Caller, Gateway, Operator, Role, StoreSettings
from breaker.core.errors import Problem
from breaker.policy.build_alerts import AlertingBuilder
from breaker.policy.document import Loc
from breaker.policy.files import check_readable, read_secret
from breaker.policy.gateway_file import CallerSection, GatewayFile, KeySection, StoreSection
from breaker.policy.job_words import parse_payload_key
from breaker.policy.shape import Shaped
from breaker.policy.store_url import is_tls, with_tls
from breaker.policy.words import did_you_mean

_KEYS_MAX = 2  # the old and the new one, while a key rotates
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayBuilder:
    """
    Builds the process.

    Attributes:
        operations: Names that callers may be allowed.
        routed: Channels that operations send their alerts to; None is not known.

    """

    shaped: Shaped[GatewayFile]
    folder: Path
    password: str | None
    operations: list[str]
    routed: frozenset[str] | None
    problems: list[Problem]

    def build(self, file: GatewayFile) -> Gateway:
        if file.listen == file.admin and not file.listen.endswith(":0"):
            self._add(("admin",), f"`admin` is {file.admin}, as is `listen`: they need two ports")
        callers, operators = self._callers(file), self._operators(file)
        self._check_shared(callers or (), operators)
        return Gateway(
            listen=file.listen,
            admin=file.admin,
            cluster=file.cluster,
            store=self._store(file.store),
            callers=callers,
            log_level=file.log.level,
            log_format=file.log.format,
            log_sample=float(file.log.sample),
            traces_endpoint=file.traces.endpoint,
            traces_sample=float(file.traces.sample),
            drain_delay_ms=file.drain.delay,
            drain_timeout_ms=file.drain.timeout,
            head_timeout_ms=file.limits.head_timeout,
            connections_max=file.limits.connections,
            cookies=file.cookies,
            operators=operators,
            key_ring=self._key_ring(file),
            jobs_max=file.jobs.in_flight,
            replicas_expected=file.replicas_expected,
            alerts=AlertingBuilder(
                shaped=self.shaped, folder=self.folder, routed=self.routed, problems=self.problems
            ).build(file.alerts),
        )

    def _store(self, store: StoreSection) -> StoreSettings:
        password, ca_file = self.password, None
        if password is None and store.password_file is not None:
            password_file = self.folder / store.password_file
            password = self._from_file(("store", "password_file"), lambda: read_secret(password_file))
        if store.ca_file is not None:
            path = self.folder / store.ca_file
            ca_file = self._from_file(("store", "ca_file"), lambda: check_readable(path))
            if not is_tls(store.url):
                self._add(
                    ("store", "ca_file"),
                    f"`ca_file` has no effect on {store.url}: write {with_tls(store.url)}:// or leave it out",
                )
        has_password = password is not None or store.password_file is not None
        if store.username is not None and not has_password and not self.shaped.is_broken(("store",)):
            self._add(("store", "username"), "`username` needs a password: state `password_file`")
        return StoreSettings(
            url=store.url,
            timeout_ms=store.timeout,
            username=store.username,
            password=password,
            ca_file=ca_file,
            needed_at_start=store.needed_at_start,
        )

    def _callers(self, file: GatewayFile) -> tuple[Caller, ...] | None:
        if not file.callers:
            # An empty list would read as "nobody" to one person and as "everybody" to another.
            if "callers" in file.model_fields_set:
                self._add(("callers",), "`callers` is empty: name one, or leave it out to let everybody call")
            return None
        callers = [self._caller(index, caller) for index, caller in enumerate(file.callers)]
        self._check_people("callers", callers, "who called could not be told")
        return tuple(callers)

    def _operators(self, file: GatewayFile) -> tuple[Operator, ...]:
        if not file.operators:
            if "operators" in file.model_fields_set:
                self._add(
                    ("operators",),
                    "`operators` is empty: name one, or leave it out to let everybody on this machine change things",
                )
            return ()
        operators = [
            Operator(
                id=section.id,
                key_hashes=self._key_hashes(("operators", index), section, "operator"),
                role=Role(section.role),
            )
            for index, section in enumerate(file.operators)
        ]
        self._check_people("operators", operators, "who changed something could not be told")
        return tuple(operators)

    def _check_people(self, what: str, people: Sequence[Caller | Operator], consequence: str) -> None:
        self._check_twice(
            ((what, index, "id"), f"two {what} have the same id '{one.id}': {consequence}", one.id)
            for index, one in enumerate(people)
        )
        self._check_twice(
            ((what, index), f"two {what} have the same key: {consequence}", key)
            for index, one in enumerate(people)
            for key in dict.fromkeys(one.key_hashes)
        )

    def _check_shared(self, callers: Iterable[Caller], operators: Iterable[Operator]) -> None:
        """A program that carries a caller's key must not be able to change limits with it."""
        owners = {key: caller.id for caller in callers for key in caller.key_hashes}
        for index, operator in enumerate(operators):
            for key in operator.key_hashes:
                if key in owners:
                    self._add(
                        ("operators", index),
                        f"operator '{operator.id}' has the key of the caller '{owners[key]}', which could then "
                        "change limits: give each its own",
                    )

    def _key_ring(self, file: GatewayFile) -> tuple[tuple[str, bytes], ...]:
        if not file.payload_keys:
            if "payload_keys" in file.model_fields_set:
                self._add(
                    ("payload_keys",),
                    "`payload_keys` is empty: name one, or leave it out to store payloads as they are",
                )
            return ()
        ring = []
        for index, section in enumerate(file.payload_keys):
            key = self._payload_key(("payload_keys", index, "file"), self.folder / section.file)
            ring.append((section.id, key or b""))
        self._check_twice(
            (
                ("payload_keys", index, "id"),
                f"two payload keys have the same id '{id_}': which one sealed a payload could not be told",
                id_,
            )
            for index, (id_, _) in enumerate(ring)
        )
        self._check_twice(
            (
                ("payload_keys", index, "file"),
                f"payload key '{id_}' is the same as another one: to rotate, make a new one",
                key,
            )
            for index, (id_, key) in enumerate(ring)
            if key
        )
        return tuple(ring)

    def _payload_key(self, at: Loc, path: Path) -> bytes | None:
        text = self._from_file(at, lambda: read_secret(path))
        try:
            return parse_payload_key(text) if text is not None else None
        except ValueError as error:
            self._add(at, f"`file`: {path} {error}")
            return None

    def _caller(self, index: int, section: CallerSection) -> Caller:
        at: Loc = ("callers", index)
        for place, pattern in enumerate(section.operations):
            self._check_pattern((*at, "operations", place), pattern)
        if not section.operations:
            self._add((*at, "operations"), "`operations` is empty: this caller could call nothing")
        return Caller(
            id=section.id,
            key_hashes=self._key_hashes(at, section, "caller"),
            operations=tuple(section.operations),
            may_name=frozenset(section.may_name),
            tenants_max=section.max_tenants,
        )

    def _key_hashes(self, at: Loc, section: KeySection, what: str) -> tuple[str, ...]:
        if (section.key_sha256 is None) == (section.key_sha256_file is None):
            self._add(at, f"{what} '{section.id}' needs one of `key_sha256_file` and `key_sha256`")
            return ()
        if section.key_sha256 is not None:
            place, source, keys = (*at, "key_sha256"), "`key_sha256`", section.key_sha256
        else:
            path = self.folder / str(section.key_sha256_file)
            place, source = (*at, "key_sha256_file"), str(path)
            text = self._from_file(place, lambda: read_secret(path))
            if text is None:
                return ()
            keys = text.split()
        # What is no hash may be the key itself: it is never repeated.
        if not 1 <= len(keys) <= _KEYS_MAX or any(not re.fullmatch(r"[0-9a-fA-F]{64}", key) for key in keys):
            self._add(place, f"{source} must hold one or two SHA-256 hashes of 64 hex digits, one per line")
        return tuple(key.lower() for key in keys)

    def _check_pattern(self, at: Loc, pattern: str) -> None:
        if not any(fnmatchcase(name, pattern) for name in self.operations) or re.search(r"[\[\]?]", pattern):
            pipelines = sorted({name.partition(".")[0] + ".*" for name in self.operations})
            near = did_you_mean(pattern, [*self.operations, *pipelines])
            self._add(at, f"'{pattern}' matches no operation{near}")

    def _check_twice(self, stated: Iterable[tuple[Loc, str, object]]) -> None:
        """Place and sentence of each value, for the second one that is the same."""
        seen: set[object] = set()
        for at, sentence, value in stated:
            if value in seen:
                self._add(at, sentence)
            seen.add(value)

    def _from_file(self, at: Loc, read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except ValueError as error:
            self._add(at, f"`{at[-1]}`: {error}")
            return None

    def _add(self, at: Loc, message: str) -> None:
        self.problems.append(self.shaped.document.problem(at, message))
