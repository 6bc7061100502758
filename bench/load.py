"""
Load: the two generators, and the call that both of them send.

`blast` is wrk: 32 connections, each sending its next call when the last is answered. It says how much a subject
can do. `pace` is pacer.py: calls at a constant rate. It says how long a call takes.
"""

import http.client
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Processes, SubjectError

CONNECTIONS = 32
LANES = 64  # of the pacer: twice the load's, so that a slow call does not hold up the next
TENANTS = 10
CALLER_KEYS = {"crm": "brk-bench-crm-5b0f2c9d41", "erp": "brk-bench-erp-9e71aa0c37"}
OPERATION_PATH = "/billing/charges"
DOWNSTREAM_PATH = "/charges"
REFUSALS = {"429", "503"}

# 150 bytes of JSON, as a billing call looks.
BODY = json.dumps(
    {
        "invoice": "inv_20260301_000417",
        "customer": "cus_8412",
        "amount_cents": 129900,
        "currency": "EUR",
        "due": "2026-03-31",
        "memo": "annual, 40 seats",
    }
)
if len(BODY) != 150:
    raise AssertionError(f"the body has {len(BODY)} bytes, not 150")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blast:
    """
    What wrk saw.

    Attributes:
        calls: All answers, a count.
        forwarded, refused: Answers per second, with status 2xx and without.
        p50_ms, p99_ms: At full load, in a closed loop: says more about 32 connections than about a call.
    """

    calls: int
    forwarded: float
    refused: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Load:
    """The generators, with the folder for what they write."""

    processes: Processes
    folder: Path

    def blast(
        self, port: int, path: str, *, seconds: float, connections: int = CONNECTIONS, prefer: str = ""
    ) -> Blast:
        """
        Args:
            prefer: The header `Prefer` of each call; empty leaves it out.

        Raises:
            SubjectError: A connection broke, or calls timed out: then the figures are not of this subject's work.
        """
        seen = self._wrk(port, path, seconds=seconds, statuses=False, connections=connections, prefer=prefer)
        if seen["broken"]:
            raise SubjectError(f"{seen['broken']} calls of {seen['calls']} broke or timed out")
        return Blast(
            calls=seen["calls"],
            forwarded=(seen["calls"] - seen["not_2xx"]) / seen["seconds"],
            refused=seen["not_2xx"] / seen["seconds"],
            p50_ms=seen["p50_ms"],
            p99_ms=seen["p99_ms"],
        )

    def statuses(self, port: int, path: str, *, seconds: float) -> dict[str, int]:
        """
        Answers by status, under the same load.

        Raises:
            SubjectError: There was one that is neither a success nor a refusal.
        """
        text = self._wrk(port, path, seconds=seconds, statuses=True)["statuses"]
        counts = {status: int(count) for status, count in (pair.split("=") for pair in text.split())}
        strange = {status for status in counts if not status.startswith("2")} - REFUSALS
        if strange:
            raise SubjectError(f"answers that are neither success nor refusal: {counts}")
        return dict(sorted(counts.items()))

    def pace(self, port: int, path: str, *, per_second: float, seconds: float) -> dict[str, Any]:
        """
        Latency at a constant rate; see pacer.py.

        Raises:
            SubjectError: Calls were lost or not forwarded, so that the latency is not that of a call.
        """
        keys = list(CALLER_KEYS.values())
        requests = [
            f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            f"Breaker-Key: {keys[tenant % len(keys)]}\r\nBreaker-Tenant: tenant-{tenant + 1}\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
            for tenant in range(TENANTS)
        ]
        order = {
            "port": port,
            "requests": requests,
            "per_second": per_second,
            "seconds": seconds,
            "lanes": LANES,
        }
        output = self.processes.run(
            "pacer",
            [sys.executable, "-m", "bench.pacer", json.dumps(order)],
            log=self.folder / "pacer.log",
            timeout_s=seconds + 30,
        )
        seen: dict[str, Any] = json.loads(output)
        if seen["lost"] or set(seen["statuses"]) != {"200"}:
            raise SubjectError(
                f"at {per_second:.0f} calls/s: {seen['lost']} lost, answers {seen['statuses']}"
            )
        return seen

    def _wrk(
        self,
        port: int,
        path: str,
        *,
        seconds: float,
        statuses: bool,
        connections: int = CONNECTIONS,
        prefer: str = "",
    ) -> dict[str, Any]:
        script = Path(__file__).with_name("wrk.lua")
        url = f"http://127.0.0.1:{port}"
        # wrk knows whole seconds only.
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
        env = {
            "BENCH_PATH": path,
            "BENCH_BODY": BODY,
            "BENCH_KEYS": " ".join(CALLER_KEYS.values()),
            "BENCH_TENANTS": str(TENANTS),
            "BENCH_STATUSES": "1" if statuses else "",
            "BENCH_PREFER": prefer,
        }
        output = self.processes.run("wrk", argv, log=self.folder / "wrk.log", timeout_s=seconds + 30, env=env)
        found = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
        if found is None:
            raise SubjectError(f"wrk gave no result:\n{output}")
        seen: dict[str, Any] = json.loads(found.removeprefix("RESULT "))
        return seen


def probe(port: int, path: str) -> None:
    """
    One call, which must come back with the downstream's body.

    Raises:
        SubjectError: It did not: the subject is set up wrongly, and would be measured refusing.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {
        "Content-Type": "application/json",
        "Breaker-Key": CALLER_KEYS["crm"],
        "Breaker-Tenant": "tenant-1",
    }
    try:
        connection.request("POST", path, BODY, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise SubjectError(f"the first call failed: {error!r}") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or b"ch_1042" not in body:
        raise SubjectError(f"the first call got {answer.status}: {body[:300]!r}")


def count_downstream(port: int) -> int:
    """How many requests the downstream has answered since it started, this one included, from its own counter."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/count")
    text = connection.getresponse().read().decode()
    connection.close()
    # "server accepts handled requests\n 1 1 7 \n": the third number of the third line.
    return int(text.splitlines()[2].split()[2])
