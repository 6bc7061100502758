"""
`breaker dead`: dead letters - list, show, redrive, purge.
"""

from typing import Annotated

import typer

from breaker.cli.client import URL, Admin, AdminUrl, Author, DryRun, Json, KeyFile, Reason, reason_of
from breaker.cli.jobs import (
    PAGE,
    After,
    All,
    Before,
    Caller,
    Failure,
    Limit,
    OnlyBand,
    Operation,
    Payload,
    Since,
    Tenant,
    filter_of,
    many,
    print_job,
    print_list,
    scope_of,
)

dead_app = typer.Typer(
    name="dead",
    help="Look at dead letters, run them again a few at a time, or let go of them.\n\n"
    "Exit status: 0 done, 1 it could not be done, 2 the command line is wrong, 3 stopped before the end.",
    no_args_is_help=True,
)


@dead_app.command("list")
def list_dead(
    *,
    operation: Operation = "",
    tenant: Tenant = "",
    band: OnlyBand = "",
    caller: Caller = "",
    failure: Failure = "",
    before: Before = "",
    since: Since = "",
    after: After = "",
    limit: Limit = PAGE,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """List dead letters, the oldest first."""
    only = filter_of(tenant, band, caller, failure, before, since)
    print_list(
        Admin(admin, key_file, author), "dead", {"operation": operation, **only},
        after=after, limit=limit, as_json=as_json,
    )  # fmt: skip


@dead_app.command("show")
def show_dead(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    payload: Payload = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why the payload is looked at.")
    ] = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Show one dead letter, with its history."""
    print_job(Admin(admin, key_file, author), "dead", id_, payload=payload, reason=reason, as_json=as_json)


@dead_app.command("redrive")
def redrive(
    *,
    operation: Operation = "",
    tenant: Tenant = "",
    band: OnlyBand = "",
    caller: Caller = "",
    failure: Failure = "",
    before: Before = "",
    since: Since = "",
    everything: All = False,
    rate: Annotated[str, typer.Option("--rate", help="Jobs per time at most: 10/s, 60/min.")] = "10/s",
    reason: Reason = "",
    dry_run: DryRun = False,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Run dead letters again: one, then 2, 4, 8, ... as long as they do not fail in the same way."""
    only = filter_of(tenant, band, caller, failure, before, since)
    gateway, why = Admin(admin, key_file, author), reason_of(reason, is_dry=dry_run)
    body = scope_of(operation, only, everything=everything, reason=why, dry_run=dry_run)
    many(gateway, ("dead", "redrive"), {**body, "rate": rate}, "redriven", as_json=as_json)


@dead_app.command("purge")
def purge(
    *,
    operation: Operation = "",
    tenant: Tenant = "",
    band: OnlyBand = "",
    caller: Caller = "",
    failure: Failure = "",
    before: Before = "",
    since: Since = "",
    everything: All = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Let go of dead letters for good; each is counted as discarded."""
    only = filter_of(tenant, band, caller, failure, before, since)
    gateway, why = Admin(admin, key_file, author), reason_of(reason, is_dry=dry_run)
    body = scope_of(operation, only, everything=everything, reason=why, dry_run=dry_run)
    many(gateway, ("dead", "purge"), body, "purged", as_json=as_json)
