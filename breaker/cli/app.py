"""
The command `breaker`. Data goes to stdout, talk to stderr.

Exit statuses: 0 all is well, 1 it could not be done (the last line says why), 2 the configuration
or the command line is wrong, 3 work on many jobs stopped before its end.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from breaker.cli.alerts import alerts_app
from breaker.cli.circuit import circuit_app
from breaker.cli.config import config_app, config_folder
from breaker.cli.dashboards import dashboards_app
from breaker.cli.dead import dead_app
from breaker.cli.jobs import jobs_app
from breaker.cli.ops import ops_app
from breaker.cli.rules import rules_app
from breaker.cli.top import top
from breaker.core.errors import ConfigError, StartError

PYTHON_MIN = (3, 11)

app = typer.Typer(
    name="breaker",
    help="A capacity gateway for support, billing and onboarding pipelines.\n\n"
    "Exit status: 0 all is well, 1 it could not be done, 2 the configuration or the command line is wrong, "
    "3 work on many jobs stopped before its end.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(config_app)
app.add_typer(ops_app)
app.add_typer(circuit_app)
app.add_typer(jobs_app)
app.add_typer(dead_app)
app.add_typer(dashboards_app)
app.add_typer(alerts_app)
app.add_typer(rules_app)
app.command()(top)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="DIR", help="The folder; else $BREAKER_CONFIG, else ./config."),
]


@app.command()
def serve(
    config: ConfigOption = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the port.")] = 1,
    worker: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve callers until SIGTERM; SIGHUP reads the configuration again."""
    from breaker.cli.serve import serve as run_serve  # noqa: PLC0415 - other commands start without it

    run(run_serve(config_folder(config), os.environ, workers=workers, worker=worker))


@app.command()
def up(
    config: ConfigOption = None,
    demo: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Drive a demonstration and end after so long; 0 stays up."
        ),
    ] = 0,
    traffic: Annotated[bool, typer.Option(help="Drive demonstration calls.")] = True,
    monitoring: Annotated[
        bool, typer.Option(help="Start Prometheus and Alertmanager, where they are installed.")
    ] = True,
) -> None:
    """Everything on this machine: store, demo downstreams, gateway, monitoring, and demonstration calls."""
    from breaker.demo.up import up as run_up  # noqa: PLC0415 - the demo is only loaded for the demo

    folder = config_folder(config)
    raise typer.Exit(run(run_up(folder, os.environ, seconds=demo, drives=traffic, monitors=monitoring)))


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run on the fastest loop there is, and turn what we raise on purpose into one clear line."""
    try:
        status: int = runner()(main)
    except ConfigError as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(2) from None
    except StartError as exc:
        print(f"breaker: {exc}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if status:
        raise typer.Exit(status)
    return status


def runner() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run
    return uvloop.run


def main() -> None:
    """The entry point."""
    if sys.version_info < PYTHON_MIN:
        print(
            f"breaker: Python {sys.version.split()[0]} is too old; 3.11 or newer is needed", file=sys.stderr
        )
        raise SystemExit(1)
    app()
