"""
`breaker alerts`: what fires, acknowledge it, silence it for a while, and test the way to on-call.
"""

from typing import Annotated, Any

import typer

from breaker.cli.client import (
    FAILED,
    URL,
    Admin,
    AdminUrl,
    Author,
    Json,
    KeyFile,
    Reason,
    Refused,
    one_line,
    reason_of,
    stop,
)
from breaker.cli.output import print_json, print_table, talk
from breaker.policy.words import did_you_mean

HEADS = ("INCIDENT", "SINCE", "TOLD", "STATE", "SUMMARY")
SILENCE_HEADS = ("SILENCE", "ALERT", "OPERATION", "UNTIL", "AUTHOR", "REASON")

alerts_app = typer.Typer(
    name="alerts",
    help="Look at alerts; acknowledge and silence them; test the channels.\n\n"
    "Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.",
    no_args_is_help=True,
)

Incident = Annotated[str, typer.Argument(metavar="INCIDENT", help="As `alerts list` shows it.")]
For = Annotated[
    str,
    typer.Option("--for", metavar="LENGTH", help="Such as 2h, at most 30d; required.", show_default=False),
]


@alerts_app.command("list")
def list_alerts(
    pending: Annotated[bool, typer.Option("--pending", help="Those that are not yet told, too.")] = False,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """List what fires, the worst first, and what waits to be delivered."""
    try:
        found = Admin(admin, key_file, author).get("alerts", pending=pending)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
        return
    print_table(HEADS, [row_of(incident) for incident in found["alerts"]])
    if found["outbox"]:
        talk(f"{len(found['outbox'])} messages are not delivered yet; breaker alerts list --json shows them")
    if not found["channels"]:
        talk("no channel is configured: nobody is told. See `alerts.channels` in gateway.yaml")
    if found["outbox"] is None:
        talk(f"the store {found['store']}")


@alerts_app.command("show")
def show_alert(
    incident: Incident,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Show one alert as on-call is told of it."""
    try:
        found = Admin(admin, key_file, author).get("alerts", pending=True)["alerts"]
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    known = {one["id"]: one for one in found}
    if incident not in known:
        stop(f"no incident '{incident}'{did_you_mean(incident, list(known))}")
    if as_json:
        print_json(known[incident])
    else:
        print(known[incident]["text"])
        if ack := known[incident]["acknowledged"]:
            print(f"Acknowledged by {one_line(ack['author'])} at {ack['at']}: {one_line(ack['reason'])}")
        if not known[incident]["is_true"]:
            print("No longer true; kept for a while, lest it flap.")


@alerts_app.command("ack")
def acknowledge(
    incident: Incident,
    reason: Reason = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Say that somebody sees to it: it is not told again until it has ended."""
    try:
        found = Admin(admin, key_file, author).post(
            "alerts", incident, "ack", body={"reason": reason_of(reason)}
        )
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
    else:
        print(f"{found['id']}  acknowledged by {found['acknowledged']['author']}")


@alerts_app.command("silence")
def silence(
    alert: Annotated[str, typer.Option("--alert", metavar="NAME", help="`*` stands for any part.")] = "",
    operation: Annotated[
        str, typer.Option("--operation", metavar="NAME", help="Only of this one; `*` stands for any part.")
    ] = "",
    reason: Reason = "",
    length: For = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Have nobody told of an alert, or of an operation's alerts, for a while."""
    body = {
        "alert": alert or None, "operation": operation or None, "reason": reason_of(reason), "expires_in": length or None,
    }  # fmt: skip
    try:
        found = Admin(admin, key_file, author).post("silences", body=body)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
    else:
        print(f"{found['id']}  {found['alert']} of {found['operation']} is silenced until {found['until']}")


@alerts_app.command("silences")
def silences(
    admin: AdminUrl = URL, key_file: KeyFile = None, author: Author = "", as_json: Json = False
) -> None:
    """List the silences, with who made them and until when."""
    try:
        found = Admin(admin, key_file, author).get("silences")
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
        return
    names = ("id", "alert", "operation", "until", "author", "reason")
    print_table(SILENCE_HEADS, [[one[name] for name in names] for one in found["silences"]])


@alerts_app.command("unsilence")
def unsilence(
    silence: Annotated[str, typer.Argument(metavar="SILENCE", help="As `alerts silences` shows it.")],
    reason: Reason = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """End a silence early; what it covered and still fires is told."""
    try:
        found = Admin(admin, key_file, author).delete("silences", silence, body={"reason": reason_of(reason)})
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
    else:
        print(f"{found['id']}  ended")


@alerts_app.command("test")
def send_test(
    channel: Annotated[str, typer.Option("--channel", metavar="NAME", help="This one; else all.")] = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Send a test message for real, and say what the receiver answered."""
    try:
        found = Admin(admin, key_file, author).post("alerts", "test", body={"channel": channel or None})
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(found)
    else:
        rows = [[name, one["result"], one["detail"]] for name, one in found["channels"].items()]
        print_table(("CHANNEL", "RESULT", "DETAIL"), rows)
    if any(one["result"] != "delivered" for one in found["channels"].values()):
        raise typer.Exit(FAILED)


def row_of(incident: dict[str, Any]) -> list[Any]:
    """One line of the list."""
    return [
        incident["id"], incident["since"], ", ".join(incident["told"]), state_of(incident),
        incident["annotations"]["summary"],
    ]  # fmt: skip


def state_of(incident: dict[str, Any]) -> str:
    """Whether it is told, and if not, why."""
    if incident["stage"] != "firing":
        return str(incident["stage"])
    if incident["acknowledged"]:
        return f"acknowledged by {incident['acknowledged']['author']}"
    if incident["silenced_by"]:
        return f"silenced by {incident['silenced_by']}"
    if incident["inhibited"]:
        return "inhibited"
    return "firing" if incident["is_true"] else "no longer true"
