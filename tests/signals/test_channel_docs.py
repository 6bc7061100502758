"""The manual of the channels says what is sent."""

import json
import re
from pathlib import Path
from typing import Any

import orjson

from breaker.core.alert_policy import ChannelType
from breaker.core.notify import Kind
from breaker.signals.alert_text import head_of, text_of
from breaker.signals.channel_alertmanager import entry_of
from breaker.signals.channel_pagerduty import event_of
from breaker.signals.channel_slack import payload_of
from breaker.signals.channel_webhook import body_of
from tests.signals.alert_scene import message_of, noticed

PAGE = (Path(__file__).parents[2] / "docs" / "alert-channels.md").read_text(encoding="utf-8")
NOTICE = noticed("BreakerCircuitOpen:warning")
MESSAGE = message_of(Kind.FIRING, NOTICE)


def example(title: str) -> Any:
    """The JSON of a section."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return json.loads(section.split("```json\n")[1].split("\n```\n")[0])


def names(value: Any) -> Any:
    """Its shape: the names of fields, of the first of a list."""
    match value:
        case {"labels": _, "annotations": _, **fields}:  # examples show some of them
            return sorted([*fields, "labels", "annotations"])
        case dict():
            return {name: names(inner) for name, inner in value.items()}
        case [first, *_]:
            return [names(first)]
        case _:
            return None


def test_every_type_of_channel_is_documented() -> None:
    """In the order of the table, each with a section of its own."""
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|$", PAGE, re.MULTILINE) == [*ChannelType]


def test_text_that_people_read_is_the_documented_one() -> None:
    """Who writes a runbook points at these lines."""
    shown = PAGE.split("```\nFIRING ")[1].split("\n```")[0]
    assert f"FIRING {shown}" == text_of(message_of(Kind.FIRING, noticed("BreakerOverCapacity:warning")))
    for kind in Kind:
        word = head_of(message_of(kind, NOTICE)).split(" warning")[0].split(" of ")[0]
        assert f"`{word}`" in PAGE


def test_examples_are_what_is_sent() -> None:
    """Receivers are written after them."""
    assert example("Alertmanager") == [entry_of(NOTICE, MESSAGE, MESSAGE.made_us)]
    event = orjson.loads(orjson.dumps(event_of(NOTICE, MESSAGE)))
    shown = example("PagerDuty")
    assert shown.pop("routing_key") == "..."
    details = event["payload"].pop("custom_details")
    assert shown["payload"].pop("custom_details").items() <= details.items()
    assert shown == event
    sent, slack = payload_of(MESSAGE), example("Slack")
    assert [names(block) for block in slack["blocks"]] == [names(block) for block in _list(sent["blocks"])]
    assert (slack["blocks"][0], slack["blocks"][2]) == (_list(sent["blocks"])[0], _list(sent["blocks"])[2])


def test_every_field_of_the_webhook_is_documented() -> None:
    """It is a contract; a field that nobody knows of cannot be relied on."""
    body = json.loads(body_of(MESSAGE))
    assert names(example("Webhook")) == names(body)
    section = PAGE.split("\n## Webhook\n")[1]
    documented = re.findall(r"^\| `([\w.\[\]]+)` \|", section, re.MULTILINE)
    assert documented == [
        line
        for field in body
        for line in (
            [field, *(f"alerts[].{inner}" for inner in body["alerts"][0])] if field == "alerts" else [field]
        )
    ]
    kinds = next(line for line in section.splitlines() if line.startswith("| `kind`"))
    assert re.findall(r"`(\w+)`", kinds)[1:] == [*Kind]


def _list(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value
