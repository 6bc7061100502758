"""The manual about calls, problems and jobs says what is, and all of it."""

import json
import re
from dataclasses import replace

from breaker.core.model import (
    TenantSource,
)
from breaker.gateway.call import Kind
from breaker.web.openapi import document
from breaker.web.openapi_parts import OUTCOMES
from breaker.web.problem_types import PROBLEMS, type_uri
from breaker.web.wishes import READ
from tests.web.described import (
    CALLER,
    PLAIN,
    ROOT,
    config,
    queued,
    shipped,
    validator,
)


def test_table_manual_and_kinds_name_the_same_problems() -> None:
    """A problem that is not in the manual leaves a caller alone with it."""
    manual = (ROOT / "docs" / "problems.md").read_text()
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", manual, re.DOTALL | re.MULTILINE))
    assert list(sections) == [str(kind) for kind in Kind] == [str(kind) for kind in PROBLEMS]
    schema = validator(document(shipped()), {"$ref": "#/components/schemas/Problem"})
    for kind in Kind:
        known, section = PROBLEMS[kind], sections[kind]
        found = re.search(r"```json\n(.*?)```", section, re.DOTALL)
        assert found, kind
        example = json.loads(found[1])
        assert (example["type"], example["title"], example["status"]) == (
            type_uri(kind),
            known.title,
            known.status,
        )
        assert schema.is_valid(example), kind
        assert f"**{known.status} {known.title}.**" in section
        for words in (known.meaning, known.advice):
            assert " ".join(words.split()).replace("`", "") in " ".join(section.split()).replace("`", ""), (
                kind
            )


def test_the_manual_names_the_headers_and_outcomes_that_there_are() -> None:
    """Who writes a client reads docs/http.md: all of it is true, and nothing is missing."""
    manual = (ROOT / "docs" / "http.md").read_text()
    one = replace(PLAIN, tenant=TenantSource(header="Breaker-Tenant"))
    described = document(config(one, callers=(CALLER,)))
    stated = {parameter["name"] for parameter in described["components"]["parameters"].values()}
    ours = {
        *described["components"]["headers"],
        *stated,
        *READ,
        "If-None-Match",
        "Breaker-Key",
        "Breaker-Tenant",
        "Breaker-Attempt",
        "Breaker-Retry",
    }
    rows = set(re.findall(r"^\| `([A-Za-z_-]+)` \|", manual, re.MULTILINE))
    outcomes = {str(outcome) for outcome in OUTCOMES}
    assert ours | outcomes <= rows
    assert set(re.findall(r"\bBreaker-[A-Z][A-Za-z-]+", manual)) <= ours
    assert {row for row in rows if row.islower()} <= outcomes | {"traceparent"}
    for path, item in described["paths"].items():
        for method in {"get", "delete"} & set(item):
            assert path.startswith("/billing") or f"`{method.upper()} {path}`" in manual


def test_the_page_about_jobs_is_true() -> None:
    """Who handles a 202 reads docs/jobs.md: every state and reason stands there, and every example is a job."""
    manual = (ROOT / "docs" / "jobs.md").read_text()
    described = document(config(queued()))
    job = described["components"]["schemas"]["Job"]["properties"]
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", manual, re.DOTALL | re.MULTILINE))
    states, reasons = re.split(r"^\| reason \|", sections["States"], flags=re.MULTILINE)
    rows = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)
    assert set(rows.findall(states)) == set(job["state"]["enum"])
    assert set(rows.findall(reasons)) == set(job["reason"]["enum"]) - {None}
    why_held = states.partition("`held` says why: ")[2].partition(". ")[0]
    assert set(re.findall(r"`([a-z-]+)`", why_held)) == set(job["held"]["enum"])
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", manual, re.DOTALL)]
    schema = validator(described, {"$ref": "#/components/schemas/Job"})
    assert [example["state"] for example in examples] == ["queued", "succeeded", "cancelled"]
    assert all(schema.is_valid(example) for example in examples)
    assert set(job) - {"held"} == {name for example in examples for name in example}
    asked = set(re.findall(r"^\| `([A-Z][A-Za-z-]+): ", sections["Asking for it"], re.MULTILINE))
    assert asked == set(READ) - {"Idempotency-Key"}
    linked = set(re.findall(r"problems\.md#([a-z-]+)", manual))
    assert linked <= set(map(str, Kind))
    about_jobs = {
        Kind.QUEUE_FULL, Kind.IDEMPOTENCY_KEY_MISSING, Kind.IDEMPOTENCY_KEY_REUSED, Kind.IN_PROGRESS, Kind.JOB_NOT_FOUND,
        Kind.DURABILITY_NOT_MET, Kind.RESULT_EXPIRED, Kind.NOT_CANCELLABLE, Kind.OUTCOME_UNKNOWN, Kind.DRAINING,
    }  # fmt: skip
    assert about_jobs <= linked
    names = {*described["components"]["headers"], *READ, "Request-Timeout", "If-None-Match"}
    assert set(re.findall(r"\bBreaker-[A-Z][A-Za-z-]+", manual)) <= names
