"""
Retries: from `retry` to core types, for jobs and for calls that do not become jobs.

The section is one and the defaults are two: a job has hours, and behind a call somebody waits.
"""

from dataclasses import dataclass

from breaker.core.circuit_policy import DirectRetry
from breaker.core.errors import Problem
from breaker.core.job_policy import Retry
from breaker.policy.document import Loc
from breaker.policy.job_sections import RetrySection
from breaker.policy.pipeline_file import PipelineFile
from breaker.policy.shape import Shaped
from breaker.policy.units import format_duration

ATTEMPTS_MAX = 10  # of a call; more is a job's business
CAP_MAX_MS = 60_000  # as long as a call may wait for its turn


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBuilder:
    """Builds the retries of one operation; `at` is its path in the document."""

    shaped: Shaped[PipelineFile]
    at: Loc
    problems: list[Problem]

    def of_jobs(self, section: RetrySection) -> Retry:
        self._check_pauses(section, section.base, section.cap)
        return Retry(for_ms=section.for_, base_ms=section.base, cap_ms=section.cap, attempts=section.attempts)

    def of_calls(self, section: RetrySection) -> DirectRetry:
        stated, usual = section.model_fields_set, DirectRetry()
        retry = DirectRetry(
            for_ms=section.for_ if "for_" in stated else usual.for_ms,
            base_ms=section.base if "base" in stated else usual.base_ms,
            cap_ms=section.cap if "cap" in stated else usual.cap_ms,
            attempts=usual.attempts if section.attempts is None else section.attempts,
        )
        self._check_calls(retry)
        self._check_pauses(section, retry.base_ms, retry.cap_ms)
        return retry

    def _check_calls(self, retry: DirectRetry) -> None:
        if self._is_broken:
            return
        if retry.attempts < 2 or retry.attempts > ATTEMPTS_MAX:  # noqa: PLR2004 - one is none again
            self._add(
                "attempts",
                f"`retry.attempts` {retry.attempts} cannot be of a call, which counts the first one and is waited for: "
                f"2 to {ATTEMPTS_MAX}, or leave `retry` out",
            )
        if retry.cap_ms > CAP_MAX_MS:
            self._add(
                "cap",
                f"`retry.cap` {format_duration(retry.cap_ms)} is too long for a call, which somebody waits for: "
                f"at most {format_duration(CAP_MAX_MS)}, or `overflow: queue`",
            )

    def _check_pauses(self, section: RetrySection, base_ms: int, cap_ms: int) -> None:
        if base_ms > cap_ms and not self._is_broken:
            self._add(
                "base" if "base" in section.model_fields_set else "cap",
                f"`retry.base` {format_duration(base_ms)} is more than `retry.cap` {format_duration(cap_ms)}: "
                "the first pause cannot be the longest",
            )

    @property
    def _is_broken(self) -> bool:
        return self.shaped.is_broken((*self.at, "retry"))

    def _add(self, name: str, message: str) -> None:
        self.problems.append(self.shaped.document.problem((*self.at, "retry", name), message))
