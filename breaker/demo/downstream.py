"""
Downstream: `python -m breaker.demo.downstream support|billing|onboarding`, one process each.

Prints `ready <name> <url>` when it listens. Ends with its parent, and with status 0 on SIGTERM or Ctrl-C.
"""

import argparse
import asyncio
import errno
import os
import signal
import sys

from aiohttp import web

from breaker.demo.downstreams.billing import BillingApi
from breaker.demo.downstreams.onboarding import OnboardingService
from breaker.demo.downstreams.support import SupportDesk
from breaker.store.parent_death import die_with_parent

_PORTS = {"support": 9101, "billing": 9102, "onboarding": 9103}
_SHUTDOWN_S = 1.0  # for answers that are being sent; work is dropped


def main() -> None:
    """Serve one downstream until told to end; exit status 1 when the address cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m breaker.demo.downstream", description="A small system with a stated capacity."
    )
    parser.add_argument("name", choices=list(_PORTS))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", type=int, help="0 takes a free one; by default 9101, 9102, 9103 in the order of the names"
    )
    parser.add_argument("--seed", type=int, default=1, help="of service times and faults")
    chosen = parser.parse_args()
    die_with_parent()
    port = _PORTS[chosen.name] if chosen.port is None else chosen.port
    try:
        asyncio.run(_serve(chosen.name, chosen.host, port, chosen.seed))
    except (OSError, OverflowError) as exc:
        # asyncio wraps the reason in a sentence of its own, with the address once more.
        taken = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
        reason = os.strerror(errno.EADDRINUSE) if taken else exc
        sys.exit(f"{chosen.name} cannot listen on {chosen.host}:{port}: {reason}; choose another --port")


async def _serve(name: str, host: str, port: int, seed: int) -> None:
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    runner = web.AppRunner(
        _app(name, seed),
        access_log=None,
        # The caller that hangs up is noticed, and its work goes on: see serving.py.
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        listening = runner.addresses[0][1]
        print(f"ready {name} http://{host}:{listening}", flush=True)  # noqa: T201  (whoever started us waits for it)
        await told_to_end.wait()
    finally:
        await runner.cleanup()


def _app(name: str, seed: int) -> web.Application:
    if name == "support":
        return SupportDesk(seed=seed).app()
    if name == "billing":
        return BillingApi(seed=seed).app()
    return OnboardingService(seed=seed).app()


if __name__ == "__main__":
    main()
