"""
`breaker circuit`: how an operation's circuit stands, and open, close and hand it back.
"""

from typing import Annotated, Any

import typer

from breaker.cli.client import (
    URL,
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
from breaker.cli.ops import Name
from breaker.cli.output import print_json, print_record

circuit_app = typer.Typer(
    name="circuit",
    help="Look at circuits; open, close and hand them back.\n\n"
    "Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.",
    no_args_is_help=True,
)

For = Annotated[
    str, typer.Option("--for", metavar="LENGTH", help="Such as 1h; without it, until it is handed back.")
]


@circuit_app.command("show")
def show(
    operation: Name,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Show one circuit, and what it leaves of the limits."""
    try:
        found = Admin(admin, key_file, author).get("operations", operation, "circuit")
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
    else:
        print_record(found)


@circuit_app.command("open")
def open_(
    operation: Name,
    reason: Reason = "",
    length: For = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Send nothing to the downstream; jobs wait, other calls are refused."""
    force(Admin(admin, key_file, author), operation, "forced-open", reason, length, as_json=as_json)


@circuit_app.command("close")
def close(
    operation: Name,
    reason: Reason = "",
    length: For = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Let everything through, however much of it fails."""
    force(Admin(admin, key_file, author), operation, "disabled", reason, length, as_json=as_json)


@circuit_app.command("auto")
def auto(
    operation: Name,
    reason: Reason = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Hand it back: it opens and closes by itself again."""
    force(Admin(admin, key_file, author), operation, "automatic", reason, "", as_json=as_json)


def force(gateway: Admin, operation: str, word: str, reason: str, length: str, *, as_json: bool) -> None:
    body = {"state": word, "reason": reason_of(reason), "expires_in": length or None}
    try:
        found = gateway.post("operations", operation, "circuit", body=body)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
    else:
        print(f"{operation}  {in_words(found['circuit'])}")


def in_words(circuit: dict[str, Any]) -> str:
    """A person's word holds until a moment, or until somebody hands it back."""
    until = f", until {circuit['until'] or 'it is handed back'}" if circuit["author"] else ""
    return f"{circuit['state']}{until}"
