"""What people read at `/docs`: the page, its examples, and the promise in sentences."""

import json
import shlex
from dataclasses import replace
from html.parser import HTMLParser

from breaker.core.job_policy import Batch, Callback, Effects, Idempotency
from breaker.core.model import (
    Capacity,
    Credential,
    Downstream,
    Limits,
    Mode,
    Operation,
    Overflow,
    Rate,
)
from breaker.gateway.call import Kind
from breaker.web.docs_page import curl, page
from breaker.web.openapi import document
from breaker.web.problem_types import type_uri
from breaker.web.promise import sentences
from tests.web.described import (
    CALLER,
    LIMITED,
    PLAIN,
    SECOND,
    config,
    operation,
    queued,
    shipped,
)


class Anchors(HTMLParser):
    """The ids of a page, where its links lead, and whatever it would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name in ("src", "style", "onclick"):
                self.sources.append(value or "")


def test_every_problem_type_leads_to_its_section_of_the_page() -> None:
    """Whoever follows `type` at three in the morning arrives at the explanation."""
    described = document(shipped())
    anchors = Anchors(page(described))
    assert len(anchors.ids) == len(set(anchors.ids))
    for kind in Kind:
        path, _, fragment = type_uri(kind).partition("#")
        assert fragment in anchors.ids
        assert path in described["paths"]
    own = {*described["paths"], *(f"#{id_}" for id_ in anchors.ids)}
    assert set(anchors.links) <= own
    assert not anchors.sources
    assert not anchors.tags & {"script", "link", "img", "iframe"}


def test_the_page_shows_markup_as_text() -> None:
    """A title in a contract is text, whatever it looks like."""
    evil = "</style><script>alert(1)</script>`<b>`"
    text = page(
        document(config(operation(contract={"title": evil, "description": evil, "examples": [evil]})))
    )
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_the_curl_examples_send_what_the_contract_takes() -> None:
    """What is copied from the page works, also with quotes in the example."""
    example = {"say": 'it\'s $HOME `now` "quoted"'}
    described = document(
        config(operation(match="PUT /a/{the_id}", contract={"examples": [example]}), callers=(CALLER,))
    )
    command = curl("/billing/a/{the_id}", "put", described["paths"]["/billing/a/{the_id}"]["put"], described)
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:5] == ["curl", "-i", "-X", "PUT", "$GATEWAY/billing/a/${THE_ID}"]
    assert json.loads(words[words.index("-d") + 1]) == example
    assert "Breaker-Key: $KEY" in words


def test_the_promise_says_what_happens_over_capacity() -> None:
    """A developer sets the client's timeout by it."""

    def over(one: Operation) -> list[str]:
        return [sentence for sentence in sentences(one) if sentence.startswith("Over capacity")]

    limited = replace(PLAIN, capacity=LIMITED, max_wait_ms=1_500)
    assert "waits its turn for 1500ms at most" in over(limited)[0]
    assert "refused at once" in over(replace(limited, max_wait_ms=0))[0]
    assert "refused at once" in over(replace(limited, waiting_max=0))[0]
    assert "goes through" in over(replace(limited, overflow=Overflow.ALERT))[0]
    assert over(replace(limited, capacity=replace(LIMITED, mode=Mode.SHADOW))) == []
    assert over(PLAIN) == []
    assert "Capacity: no limit." in sentences(PLAIN)
    assert "5 starts per second (5 at once)" in sentences(limited)[0]
    closed = Capacity(limits=Limits(rate=Rate(limit=0, period_us=SECOND)))
    assert sentences(replace(PLAIN, capacity=closed))[0].endswith("together: closed.")


def test_the_promise_of_a_queue_says_how_long_and_how_safe() -> None:
    """A developer decides by it whether a 202 is good enough."""
    said = " ".join(sentences(queued()))
    assert "becomes a job (202), which should start within 1m." in said
    assert "10 jobs may wait" in said
    assert "open hours" not in said
    assert "expires" not in said
    assert "tried again for 1h, always with the same key" in said
    assert "Idempotency-Key is welcome, and remembered for 1d" in said
    assert "Over capacity: the call waits" not in said
    full = replace(
        queued(expire_after_ms=120_000, keep_result_ms=60_000), effects=Effects.ONCE,
        idempotency=Idempotency(is_required=True, window_ms=1_000), callback=Callback(allow=("a.example",), secrets=()),
        batch=Batch(path="/b", max_items=9),
    )  # fmt: skip
    said = " ".join(sentences(full))
    for words in (
        "did not start within 2m expires", "never repeated by a machine", "Idempotency-Key is required, and remembered for 1s",
        "kept for 1m", "Breaker-Callback tells", "9 at most",
    ):  # fmt: skip
        assert words in said


def test_neither_document_nor_page_tells_a_secret() -> None:
    """Callers read these: they must not learn where a downstream is, its password, or who else is a tenant."""
    one = operation(
        downstream=Downstream(
            url="http://10.9.8.7:9102", credential=Credential(header="Authorization", value="hunter2")
        ),
        capacity=Capacity(tenants={"wonka": Limits(concurrency=1)}),
        contract_file="contracts/hidden.json",
    )
    described = document(config(one, callers=(CALLER,)))
    for text in (json.dumps(described), page(described)):
        for secret in ("10.9.8.7", "hunter2", "wonka", "hidden.json", "abab"):
            assert secret not in text
