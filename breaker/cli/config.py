"""
`breaker config`: validate, schema, explain, diff.

Data goes to stdout, talk to stderr. Exit statuses: 0 all is well, 1 the two folders differ (`diff`),
2 the configuration (or the command line) is wrong.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from breaker.core.errors import ConfigError
from breaker.policy import fields, schema
from breaker.policy.diff import diff
from breaker.policy.explain import explain
from breaker.policy.load import Loaded, load_documents
from breaker.policy.values import limits_in_words
from breaker.policy.words import did_you_mean

DIFFERENT = 1
WRONG = 2

config_app = typer.Typer(
    name="config",
    help="Check, describe and compare configuration folders.\n\n"
    "Exit status: 0 all is well, 1 the folders differ (diff), 2 the configuration is wrong.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None,
    typer.Option("--config", metavar="DIR", help="The folder; else $BREAKER_CONFIG, else ./config."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def config_folder(folder: Path | None) -> Path:
    """The folder that a command works on."""
    return folder or Path(os.environ.get("BREAKER_CONFIG") or "config")


@config_app.command()
def validate(config: Folder = None, as_json: Json = False) -> None:
    """
    Read everything and name every problem, as file:line:column.

    Exit status: 0 valid, 2 not.
    """
    folder = config_folder(config)
    loaded = _load(folder, as_json=as_json)
    result = loaded.config
    if as_json:
        _print_json(
            {"ok": True, "version": result.version, "operations": list(result.operations), "problems": []}
        )
        return
    print(f"{folder}: valid, version {result.version}, {len(result.operations)} operations")
    if result.gateway.callers is None:
        print("no callers are named: everybody who reaches the listener may call", file=sys.stderr)


@config_app.command("schema")
def show_schema(
    kind: Annotated[str, typer.Argument(metavar="[gateway|pipeline]", help="Which file.")] = "pipeline",
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of fields instead.")] = False,
) -> None:
    """Print the JSON Schema of a file, for editors; or the table of its fields."""
    if kind not in {"gateway", "pipeline"}:
        _stop(f"unknown file {kind!r}{did_you_mean(kind, ['gateway', 'pipeline'])}")
    chosen: schema.FileKind = "gateway" if kind == "gateway" else "pipeline"
    if markdown:
        print(fields.markdown(schema.model_of(chosen)), end="")
    else:
        _print_json(schema.schema_of(chosen))


@config_app.command("explain")
def show_explanation(
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="Such as billing.charge-invoice.")],
    config: Folder = None,
    as_json: Json = False,
) -> None:
    """
    Show the effective value of every field of an operation, and where it comes from.

    Exit status: 0 shown, 2 no such operation, or the configuration is wrong.
    """
    loaded = _load(config_folder(config), as_json=as_json)
    known = list(loaded.config.operations)
    if operation not in known:
        _stop(f"unknown operation {operation!r}{did_you_mean(operation, known)}")
    found = explain(loaded, operation, time.time_ns() // 1000)
    then = found.then and {"at": _moment(found.then[0]), "limits": limits_in_words(found.then[1])}
    if as_json:
        rows = [asdict(row) for row in found.rows]
        now = limits_in_words(found.now)
        _print_json({"operation": operation, "fields": rows, "limits_now": now, "limits_next": then})
        return
    widths = [max(len(getattr(row, name)) for row in found.rows) for name in ("field", "value")]
    for row in found.rows:
        print(f"{row.field:<{widths[0]}}  {row.value:<{widths[1]}}  {row.origin}")
    print(f"\nlimits now: {limits_in_words(found.now)}")
    if then:
        print(f"from {then['at']}: {then['limits']}")


@config_app.command("diff")
def show_diff(
    folder_a: Annotated[Path, typer.Argument(metavar="DIR_A", help="The old folder.")],
    folder_b: Annotated[Path, typer.Argument(metavar="DIR_B", help="The new folder.")],
    as_json: Json = False,
) -> None:
    """
    Say in words what differs between two folders.

    Exit status: 0 nothing, 1 something, 2 one of them is wrong.
    """
    found = diff(_load(folder_a, as_json=as_json).config, _load(folder_b, as_json=as_json).config)
    if as_json:
        _print_json({"differences": [asdict(difference) for difference in found]})
    else:
        for difference in found:
            print(difference)
        print(f"{len(found)} differences", file=sys.stderr)
    raise typer.Exit(DIFFERENT if found else 0)


def _load(folder: Path, *, as_json: bool) -> Loaded:
    """The folder's configuration, or the end of the command with all of its problems."""
    try:
        return load_documents(folder, os.environ)
    except ConfigError as error:
        if as_json:
            _print_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
        for problem in error.problems:
            print(problem, file=sys.stderr)
        count = len(error.problems)
        print(f"{folder}: {count} problem{'s' if count > 1 else ''}", file=sys.stderr)
        raise typer.Exit(WRONG) from None


def _stop(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(WRONG)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _moment(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")
