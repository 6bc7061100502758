"""
`breaker ops`: how operations stand, pause, drain and resume, and other limits for a while.
"""

from typing import Annotated, Any

import typer

from breaker.cli.client import (
    URL,
    WRONG,
    Admin,
    AdminUrl,
    Author,
    Json,
    KeyFile,
    Reason,
    Refused,
    reason_of,
    stop,
)
from breaker.cli.output import print_json, print_record, print_table
from breaker.policy.words import did_you_mean

HEADS = ("OPERATION", "OVERFLOW", "LIMITS", "SOURCE", "CIRCUIT", "IN FLIGHT", "WAITING", "OLDEST", "RUNNING", "DEAD",
         "UNKNOWN", "HELD")  # fmt: skip
LIMITS = ("rate", "burst", "concurrency")

ops_app = typer.Typer(
    name="ops",
    help="Look at operations; pause, drain and resume them; set their limits for a while.\n\n"
    "Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="OPERATION", help="Such as billing.charge-invoice.")]
For = Annotated[
    str, typer.Option("--for", metavar="LENGTH", help="Such as 2h; without it, until it is resumed.")
]
Values = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE...", help="rate=40/s burst=80 concurrency=12: one or more.")
]
Length = Annotated[
    str,
    typer.Option("--for", metavar="LENGTH", help="Such as 1h, at most 30d; required.", show_default=False),
]
Tries = Annotated[bool, typer.Option("--dry-run", help="Show before and after, and change nothing.")]


@ops_app.command("list")
def list_operations(
    admin: AdminUrl = URL, key_file: KeyFile = None, author: Author = "", as_json: Json = False
) -> None:
    """List all operations: limits, what is in use, what waits, and who holds it."""
    found = ask(Admin(admin, key_file, author))
    if as_json:
        print_json(found)
    else:
        print_table(HEADS, [row_of(operation) for operation in found["operations"]])


@ops_app.command("show")
def show_operation(
    operation: Name,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Show one operation."""
    print_operation(ask(Admin(admin, key_file, author), operation), as_json=as_json)


@ops_app.command("pause")
def pause(
    operation: Name,
    reason: Reason = "",
    length: For = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Start none of its jobs; new calls become jobs, and wait."""
    hold(Admin(admin, key_file, author), operation, "pause", reason, length, as_json=as_json)


@ops_app.command("drain")
def drain(
    operation: Name,
    reason: Reason = "",
    length: For = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Take nothing new; what waits is worked off."""
    hold(Admin(admin, key_file, author), operation, "drain", reason, length, as_json=as_json)


@ops_app.command("resume")
def resume(
    operation: Name,
    reason: Reason = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """End a pause or a drain."""
    hold(Admin(admin, key_file, author), operation, "resume", reason, "", as_json=as_json)


@ops_app.command("set")
def set_limits(
    operation: Name,
    values: Values,
    length: Length = "",
    reason: Reason = "",
    is_dry: Tries = False,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Set limits of an operation for a while, on all replicas at once; they end by themselves."""
    said = said_in(values)
    if not length:
        stop("--for is missing: say for how long, such as --for 1h; then the limits end by themselves", WRONG)
    body = {**said, "reason": reason_of(reason, is_dry=is_dry), "expires_in": length, "dry_run": is_dry}
    try:
        found = Admin(admin, key_file, author).put("operations", operation, "override", body=body)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    print_change(found, as_json=as_json)


@ops_app.command("unset")
def unset_limits(
    operation: Name,
    reason: Reason = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """End limits that a person set, now: what the schedule or the file says holds again."""
    body = {"reason": reason_of(reason)}
    try:
        found = Admin(admin, key_file, author).delete("operations", operation, "override", body=body)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    print_change(found, as_json=as_json)


def said_in(values: list[str]) -> dict[str, str]:
    """`rate=40/s` and the like; what they may be is the gateway's to say."""
    said: dict[str, str] = {}
    for text in values:
        key, sign, value = text.partition("=")
        if not sign or not value:
            stop(f"'{text}' is no KEY=VALUE, such as rate=40/s, burst=80 or concurrency=12", WRONG)
        if key not in LIMITS:
            stop(f"'{key}' is no limit{did_you_mean(key, LIMITS)}", WRONG)
        if key in said:
            stop(f"'{key}' is said twice", WRONG)
        said[key] = value
    return said


def print_change(found: dict[str, Any], *, as_json: bool) -> None:
    """Before and after, and until when."""
    if as_json:
        print_json(found)
        return
    change = found["change"]
    until = f", until {change['until']}" if change["until"] else ""
    tried = "" if change["changed"] else "  (nothing was changed)"
    before, after = change["before"]["words"], change["after"]["words"]
    print(f"{found['operation']}  {before} -> {after}{until}{tried}")


def ask(gateway: Admin, *path: str) -> dict[str, Any]:
    try:
        return gateway.get("operations", *path)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)


def hold(gateway: Admin, operation: str, verb: str, reason: str, length: str, *, as_json: bool) -> None:
    body = {"reason": reason_of(reason), "expires_in": length or None}
    try:
        found = gateway.post("operations", operation, verb, body=body)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
        return
    held = found["queue"]["held"]
    until = f", until {held['until'] or 'it is resumed'}" if held else ""
    print(f"{operation}  {held['state'] if held else 'resumed'}{until}")


def print_operation(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_record(found)


def row_of(operation: dict[str, Any]) -> list[Any]:
    """One line of the list; what the store does not say now is left open."""
    limits, use, queue = operation["limits"] or {}, operation["use"] or {}, operation["queue"]
    circuit = operation["circuit"] or {}
    row = [
        operation["operation"], operation["overflow"], limits.get("in_force", {}).get("words"), source_words(limits),
        circuit.get("state"), use.get("in_flight"),
    ]  # fmt: skip
    if queue is None:
        return [*row, use.get("waiting"), None, None, None, None, None]
    waiting = sum(queue["waiting"].values()) + queue["scheduled"]
    oldest_ms = max(queue["oldest_ms"].values(), default=0)
    return [
        *row, waiting, in_words(oldest_ms), queue["running"], queue["dead"], queue["unknown"],
        held_words(operation, queue["held"]),
    ]  # fmt: skip


def source_words(limits: dict[str, Any]) -> str | None:
    """Where the limits come from; of a person's, whose they are and until when."""
    override = limits.get("override")
    source: str | None = limits.get("source")
    return f"{source} by {override['author']} until {override['until']}" if override else source


def held_words(operation: dict[str, Any], held: dict[str, Any] | None) -> str | None:
    """Why its jobs wait, if they do."""
    if operation.get("removed"):
        return "removed: no file names it"
    return f"{held['state']} by {held['author']}: {held['reason']}" if held else None


def in_words(age_ms: int) -> str | None:
    """An age in its largest fitting unit; None for 0."""
    for unit, length_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if age_ms >= length_ms:
            return f"{age_ms // length_ms}{unit}"
    return "<1s" if age_ms else None
