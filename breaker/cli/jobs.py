"""
`breaker jobs`: list, show, cancel, move, resolve.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from breaker.cli.client import (
    INTERRUPTED,
    URL,
    WRONG,
    Admin,
    AdminUrl,
    Author,
    DryRun,
    Json,
    KeyFile,
    Reason,
    Refused,
    reason_of,
    stop,
)
from breaker.cli.output import follow, print_json, print_record, print_table, talk

PAGE = 100
HEADS = ("ID", "STATE", "BAND", "TENANT", "CALLER", "ATTEMPTS", "ACCEPTED", "SINCE", "FAILURE")
COLUMNS = ("id", "state", "band", "tenant", "caller", "attempts", "accepted", "since", "reason")

jobs_app = typer.Typer(
    name="jobs",
    help="Look at jobs and change them, one by its id or many by a filter.\n\n"
    "Exit status: 0 done, 1 it could not be done, 2 the command line is wrong, 3 stopped before the end.",
    no_args_is_help=True,
)

Operation = Annotated[
    str, typer.Option("--operation", metavar="NAME", help="Such as billing.charge-invoice.")
]
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only those of this tenant.")]
Caller = Annotated[str, typer.Option("--caller", metavar="ID", help="Only those of this caller.")]
OnlyBand = Annotated[str, typer.Option("--band", help="Only those in this band.")]
Failure = Annotated[
    str,
    typer.Option("--failure", metavar="CLASS", help="Only those that failed so: caller, budget, poison, ..."),
]
Before = Annotated[
    str, typer.Option("--before", metavar="WHEN", help="Older than: 2h, or 2026-01-31T18:00:00Z.")
]
Since = Annotated[str, typer.Option("--since", metavar="WHEN", help="Not older than: 2h, or a moment.")]
After = Annotated[str, typer.Option("--after", metavar="CURSOR", help="Go on where the last list ended.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Jobs at most.")]
All = Annotated[bool, typer.Option("--all", help="All of the operation's, with no filter.")]
Payload = Annotated[
    bool, typer.Option("--payload", help="With what was stored of the call; this is written down.")
]
JobIds = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)]


@jobs_app.command("list")
def list_jobs(
    *,
    operation: Operation = "",
    state: Annotated[str, typer.Option(help="running, queued, scheduled, unknown or dead.")] = "",
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
    """List jobs that have not ended, or that wait for a person."""
    only = filter_of(tenant, band, caller, failure, before, since)
    print_list(
        Admin(admin, key_file, author), "jobs", {"operation": operation, "state": state, **only},
        after=after, limit=limit, as_json=as_json,
    )  # fmt: skip


@jobs_app.command("show")
def show_job(
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
    """Show one job, with its history."""
    print_job(Admin(admin, key_file, author), "jobs", id_, payload=payload, reason=reason, as_json=as_json)


@jobs_app.command("cancel")
def cancel_jobs(
    *,
    ids: JobIds = None,
    operation: Operation = "",
    state: Annotated[str, typer.Option(help="Only queued, or only scheduled ones.")] = "",
    tenant: Tenant = "",
    band: OnlyBand = "",
    caller: Caller = "",
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
    """Cancel jobs that wait: those with these ids, or those of an operation that pass a filter."""
    only = filter_of(tenant, band, caller, "", before, since)
    gateway, why = Admin(admin, key_file, author), reason_of(reason, is_dry=dry_run)
    if ids:
        refuse_filter(operation, state, only, everything=everything, is_dry=dry_run)
        one_by_one(
            ids, lambda id_: gateway.post("jobs", id_, "cancel", body={"reason": why}), as_json=as_json
        )
        return
    body = scope_of(operation, only, everything=everything, state=state, dry_run=dry_run, reason=why)
    many(gateway, ("jobs", "cancel"), body, "cancelled", as_json=as_json)


@jobs_app.command("move")
def move_jobs(
    *,
    ids: JobIds = None,
    to: Annotated[str, typer.Option("--to", metavar="BAND", help="critical, high, normal or low.")] = "",
    operation: Operation = "",
    state: Annotated[str, typer.Option(help="Only queued, or only scheduled ones.")] = "",
    tenant: Tenant = "",
    band: OnlyBand = "",
    caller: Caller = "",
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
    """Move jobs that wait to another band: those with these ids, or those that pass a filter."""
    only = filter_of(tenant, band, caller, "", before, since)
    gateway, why = Admin(admin, key_file, author), reason_of(reason, is_dry=dry_run)
    if not to:
        stop("--to is missing: critical, high, normal or low", WRONG)
    if ids:
        refuse_filter(operation, state, only, everything=everything, is_dry=dry_run)
        body = {"reason": why, "band": to}
        one_by_one(ids, lambda id_: gateway.post("jobs", id_, "move", body=body), as_json=as_json)
        return
    scope = scope_of(operation, only, everything=everything, state=state, dry_run=dry_run, reason=why)
    many(gateway, ("jobs", "move"), {**scope, "band": to}, "moved", as_json=as_json)


@jobs_app.command("resolve")
def resolve_job(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    how: Annotated[
        str,
        typer.Option("--how", help="happened, did-not (run it), again (run it all the same) or give-up."),
    ] = "",
    reason: Reason = "",
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Say what became of jobs whose outcome nobody knew."""
    gateway, body = Admin(admin, key_file, author), {"reason": reason_of(reason), "how": how}
    if not how:
        stop("--how is missing: happened, did-not, again or give-up", WRONG)
    one_by_one(ids, lambda id_: gateway.post("jobs", id_, "resolve", body=body), as_json=as_json)


def filter_of(tenant: str, band: str, caller: str, failure: str, before: str, since: str) -> dict[str, str]:
    """What was said of the jobs that are meant."""
    said = {
        "tenant": tenant,
        "band": band,
        "caller": caller,
        "reason": failure,
        "before": before,
        "since": since,
    }
    return {name: value for name, value in said.items() if value}


def scope_of(
    operation: str,
    only: dict[str, str],
    *,
    everything: bool,
    reason: str,
    dry_run: bool,
    state: str = "",
) -> dict[str, Any]:
    """The body of work on many jobs; scope is said, never assumed."""
    if not operation:
        stop("say which jobs: their ids, or --operation NAME with a filter", WRONG)
    if not only and not state and not everything:
        stop(f"say which jobs of {operation}: a filter such as --tenant, or --all", WRONG)
    if (only or state) and everything:
        stop("--all is all of the operation's: leave it out, or the filter", WRONG)
    body: dict[str, Any] = {"operation": operation, "filter": only, "dry_run": dry_run}
    return body | {name: text for name, text in (("state", state), ("reason", reason)) if text}


def refuse_filter(
    operation: str, state: str, only: dict[str, str], *, everything: bool, is_dry: bool
) -> None:
    """Ids and a filter together could mean either or both."""
    if operation or state or only or everything:
        stop("give job ids, or a filter, not both", WRONG)
    if is_dry:
        stop("--dry-run counts what a filter finds; these jobs you have counted yourself", WRONG)


def one_by_one(ids: Sequence[str], change: Callable[[str], dict[str, Any]], *, as_json: bool) -> None:
    """Change each job; one that cannot be changed does not stop the others."""
    changed, problems = [], []
    status = 0
    for id_ in ids:
        try:
            changed.append(change(id_))
        except Refused as exc:
            problems.append({"id": id_, "detail": exc.detail})
            status = max(status, exc.exit_status)
    if as_json:
        print_json({"jobs": changed, "problems": problems})
    else:
        for job in changed:
            print(f"{job['id']}  {job.get('band') or job['state']}")
    for problem in problems:
        talk(f"breaker: {problem['detail']}")
    if status:
        raise typer.Exit(status)


def many(gateway: Admin, path: tuple[str, ...], body: dict[str, Any], what: str, *, as_json: bool) -> None:
    """Work on many jobs, followed to its end."""
    try:
        follow(gateway.work(*path, body=body), what, as_json=as_json)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    except KeyboardInterrupt:
        # The gateway stops with the connection, at most a step later.
        stop("broken off; what is done stays done, and asking again goes on with the rest", INTERRUPTED)


def print_list(
    gateway: Admin, path: str, query: dict[str, str], *, after: str, limit: int, as_json: bool
) -> None:
    """As many as were asked for, however many pages that takes."""
    jobs: list[dict[str, Any]] = []
    while True:
        try:
            page = gateway.get(path, **query, after=after, limit=min(limit - len(jobs), PAGE))
        except Refused as exc:
            stop(exc.detail, exc.exit_status)
        jobs += page["jobs"]
        after = page["next"] or ""
        if not after or len(jobs) >= limit:
            break
    if as_json:
        print_json({"jobs": jobs, "next": after or None})
        return
    print_table(HEADS, [[job[name] for name in COLUMNS] for job in jobs])
    if after:
        talk(f"there may be more: --after '{after}'")


def print_job(gateway: Admin, path: str, id_: str, *, payload: bool, reason: str, as_json: bool) -> None:
    try:
        job = gateway.get(path, id_, payload=int(payload), reason=reason)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    if as_json:
        print_json(job)
    else:
        print_record(job)
