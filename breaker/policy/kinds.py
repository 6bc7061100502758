"""
Kinds: what a single value of a file can be, and how a field is described.

A default is written as a person would write it, so that the JSON Schema, the documents and
`config explain` all show the same. Every section forbids what it does not know.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
)

from breaker.core.model import Match, Rate
from breaker.policy import job_words as jw
from breaker.policy import units as u
from breaker.policy import words as w


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value is called in the documents."""

    text: str


def setting(meaning: str, default: Any = ..., *, example: Any, shown: str | None = None) -> Any:
    """
    One field of a file.

    Args:
        meaning: For the documents and for editors, one sentence.
        default: As written in YAML; `...` is required.
        example: As written in YAML.
        shown: The default in words, where it depends on other fields.

    """
    extra: dict[str, JsonValue] | None = {"x-default": shown} if shown else None
    return Field(default, description=meaning, examples=[example], json_schema_extra=extra)


def text(kind: str, check: Any) -> tuple[Any, ...]:
    return AfterValidator(check), Kind(kind)


Duration = Annotated[
    int,
    BeforeValidator(u.parse_duration),
    WithJsonSchema({"type": "string", "pattern": u.DURATION_PATTERN}),
    Kind("duration"),
]
Pace = Annotated[
    Rate,
    PlainValidator(u.parse_rate),
    WithJsonSchema({"type": "string", "pattern": u.RATE_PATTERN}),
    Kind("rate"),
]
Length = Annotated[Duration, Field(gt=0)]
Size = Annotated[
    int,
    BeforeValidator(u.parse_size),
    WithJsonSchema({"type": ["string", "integer"], "pattern": u.SIZE_PATTERN, "minimum": 0}),
    Kind("size"),
]


def at_most(longest: str) -> AfterValidator:
    """A bound on a duration, in the words of the files."""

    def check(duration_ms: int) -> int:
        if duration_ms > u.parse_duration(longest):
            raise ValueError(f"{u.format_duration(duration_ms)} is too long: at most {longest}")
        return duration_ms

    return AfterValidator(check)


def at_least(shortest: str) -> AfterValidator:
    """The other bound on a duration, likewise."""

    def check(duration_ms: int) -> int:
        if duration_ms < u.parse_duration(shortest):
            raise ValueError(f"{u.format_duration(duration_ms)} is too short: at least {shortest}")
        return duration_ms

    return AfterValidator(check)


def at_most_size(largest: str) -> AfterValidator:
    """A bound on a size, likewise."""

    def check(size: int) -> int:
        if size > u.parse_size(largest):
            raise ValueError(f"{u.format_size(size)} is too large: at most {largest}")
        return size

    return AfterValidator(check)


Name = Annotated[
    str, *text("name", w.check_name), WithJsonSchema({"type": "string", "pattern": w.NAME_PATTERN})
]
Tenant = Annotated[
    str, *text("tenant", w.check_tenant), WithJsonSchema({"type": "string", "pattern": w.TENANT_PATTERN})
]
Zone = Annotated[str, *text("time zone", w.check_timezone)]
Address = Annotated[str, *text("host:port", w.check_address)]
Header = Annotated[str, *text("header name", w.check_header)]
Pointer = Annotated[str, *text("JSON pointer", w.check_pointer)]
Template = Annotated[str, *text("path template", w.check_template)]
File = Annotated[str, Field(min_length=1), Kind("file")]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Burst = Annotated[int, Field(ge=1, le=1_000_000)]
Slots = Annotated[int, Field(ge=0, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[int, Field(ge=1, le=1000)]
Room = Annotated[Size, Field(gt=0)]
Route = Annotated[
    Match,
    PlainValidator(w.parse_match),
    WithJsonSchema({"type": "string", "pattern": rf"^({'|'.join(w.METHODS)}) /"}),
    Kind("method and path"),
]
Probe = Annotated[
    Match,
    PlainValidator(jw.parse_probe),
    WithJsonSchema({"type": "string", "pattern": rf"^GET /.*\{{{jw.PROBE_KEY}\}}"}),
    Kind("GET and path"),
]
BatchPath = Annotated[
    str,
    PlainValidator(jw.parse_batch_path),
    WithJsonSchema({"type": "string", "pattern": r"^POST /[^{}]*$"}),
    Kind("POST and path"),
]
Durable = Annotated[
    jw.Durable,
    PlainValidator(jw.parse_durability),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["fsync", "memory"]},
                {"type": "string", "pattern": r"^replicated:\s*[0-9]+$"},
                {
                    "type": "object",
                    "properties": {
                        "replicated": {"type": "integer", "minimum": 1, "maximum": jw.REPLICAS_MAX}
                    },
                    "required": ["replicated"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
    Kind("`fsync`, `memory` or `{replicated: N}`"),
]
KeyId = Annotated[
    str, *text("key id", jw.check_key_id), WithJsonSchema({"type": "string", "pattern": jw.KEY_ID_PATTERN})
]
CallbackHost = Annotated[str, *text("host", jw.check_callback_host)]
StoredHeader = Annotated[str, *text("header name", jw.check_stored_header)]


class Section(BaseModel):
    """A mapping in a file. Strict: `true` is no number and `5` is no text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)
