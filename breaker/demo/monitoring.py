"""
Monitoring: Prometheus and Alertmanager beside the gateway, where they are installed, with its metrics and its rules.

They are not needed: where they are missing, or do not come up, one line says so and all else goes on.

1. The rules are made from the running configuration, as `breaker rules export` makes them.
2. Prometheus keeps what it saw in the data folder, for a day; Alertmanager begins anew, or it would not tell again what it
   told the last time.
3. Both listen on this machine only, on their usual ports or the next free ones.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml

from breaker.core.alert_policy import Severity
from breaker.core.config import Config
from breaker.core.errors import StartError
from breaker.demo.preflight import HERE, free_port
from breaker.demo.processes import Child, Processes
from breaker.signals import rules
from breaker.signals.inhibit_rules import inhibit_rules

PROMETHEUS = ("prometheus",)
ALERTMANAGER = ("prometheus-alertmanager", "alertmanager")  # as Debian names it, and as everybody else
PROMETHEUS_PORT, ALERTMANAGER_PORT = 9090, 9093
HOW_TO_INSTALL = "apt install prometheus prometheus-alertmanager"
READY_S = 15.0
MORE_PATH = "/usr/sbin:/usr/local/bin:/usr/local/sbin:/opt/homebrew/bin"  # where a user's PATH may not lead
# A demonstration is over within seconds; 15s is usual for both. Each scrape costs the gateway some 30 ms.
_SCRAPE_EVERY, _JUDGE_EVERY = "2s", "1s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where they are; None is not installed."""

    prometheus: str | None
    alertmanager: str | None

    def missing(self) -> str:
        """What is not there and how to get it, in one line; empty when all is there."""
        lost = [
            name
            for name, found in (("Prometheus", self.prometheus), ("Alertmanager", self.alertmanager))
            if not found
        ]
        if not lost:
            return ""
        verb = "is" if len(lost) == 1 else "are"
        return f"{' and '.join(lost)} {verb} not installed, and left out: {HOW_TO_INSTALL}"


def programs(environ: Mapping[str, str]) -> Programs:
    path = f"{environ.get('PATH', '')}:{MORE_PATH}"
    return Programs(prometheus=_which(PROMETHEUS, path), alertmanager=_which(ALERTMANAGER, path))


def _which(names: tuple[str, ...], path: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """
    What runs.

    Attributes:
        prometheus, alertmanager: Their addresses; None when one does not run.
        said: What there is to say about it, a line each.

    """

    prometheus: str | None = None
    alertmanager: str | None = None
    said: tuple[str, ...] = ()


async def start(
    config: Config,
    processes: Processes,
    session: aiohttp.ClientSession,
    *,
    admin_url: str,
    receiver_url: str,
) -> Started:
    """
    Start what is installed, and wait until it answers.

    Args:
        admin_url: What is scraped.
        receiver_url: Where Alertmanager sends.

    """
    found = programs(processes.environ)
    said = [line for line in (found.missing(),) if line]
    if found.prometheus is None:
        # An Alertmanager that nobody sends to shows nothing.
        return Started(said=tuple(said))
    folder = processes.folder / "monitoring"
    waiting: dict[str, tuple[Child, str]] = {}
    alertmanager_port = None
    if found.alertmanager:
        shutil.rmtree(folder / "alertmanager-data", ignore_errors=True)
        alertmanager_port = free_port(ALERTMANAGER_PORT)
        file = _write(folder / "alertmanager.yaml", alertmanager_config(f"{receiver_url}/alertmanager"))
        command = alertmanager_command(found.alertmanager, file, alertmanager_port)
        child = await processes.start("alertmanager", command, is_needed=False)
        waiting["alertmanager"] = child, _url(alertmanager_port)
    target = f"{HERE}:{alertmanager_port}" if alertmanager_port else None
    for name, text in rules.files_of(config).items():
        _write_text(folder / "rules" / name, text)
    file = _write(folder / "prometheus.yaml", prometheus_config(admin_url, target))
    port = free_port(PROMETHEUS_PORT)
    child = await processes.start(
        "prometheus", prometheus_command(found.prometheus, file, port), is_needed=False
    )
    waiting["prometheus"] = child, _url(port)
    answers: dict[str, str] = {}
    for name, (child, url) in waiting.items():
        try:
            await processes.wait_ready(child, f"{url}/-/ready", session, within_s=READY_S)
            answers[name] = url
        except StartError as exc:
            said.append(f"left out: {exc}")
    return Started(
        prometheus=answers.get("prometheus"), alertmanager=answers.get("alertmanager"), said=tuple(said)
    )


def prometheus_command(program: str, file: Path, port: int) -> list[str]:
    # Without --web.enable-lifecycle: nobody ends or reloads it over HTTP.
    return [
        program,
        f"--config.file={file}",
        f"--web.listen-address={HERE}:{port}",
        f"--storage.tsdb.path={file.parent / 'prometheus-data'}",
        "--storage.tsdb.retention.time=1d",
        "--storage.tsdb.retention.size=256MB",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]


def alertmanager_command(program: str, file: Path, port: int) -> list[str]:
    return [
        program,
        f"--config.file={file}",
        f"--web.listen-address={HERE}:{port}",
        f"--storage.path={file.parent / 'alertmanager-data'}",
        "--cluster.listen-address=",  # it is alone, and opens no port to the network
        "--log.level=warn",
    ]


def prometheus_config(admin_url: str, alertmanager: str | None) -> dict[str, Any]:
    """
    Scrapes the gateway and tells the Alertmanager.

    Args:
        admin_url: Of the gateway.
        alertmanager: host:port; None when there is none.

    """
    alerting = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]} if alertmanager else {}
    return {
        "global": {
            "scrape_interval": _SCRAPE_EVERY,
            "scrape_timeout": _SCRAPE_EVERY,
            "evaluation_interval": _JUDGE_EVERY,
        },
        "rule_files": ["rules/*.yaml"],
        "alerting": alerting,
        "scrape_configs": [
            {"job_name": "breaker", "static_configs": [{"targets": [urlsplit(admin_url).netloc]}]},
        ],
    }


def alertmanager_config(hook_url: str) -> dict[str, Any]:
    """Groups as the gateway's own way does, a message for each alert and team, and sends all to the receiver."""
    return {
        "route": {
            "receiver": "demonstration",
            "group_by": ["alertname", "team", "cluster"],
            "group_wait": "1s",
            "group_interval": "5s",
            "repeat_interval": "4h",
            # The watchdog always fires. It is for a dead man's switch, and tells a person nothing.
            "routes": [{"receiver": "nobody", "matchers": [f'severity="{Severity.NONE}"']}],
        },
        "receivers": [
            {"name": "demonstration", "webhook_configs": [{"url": hook_url, "send_resolved": True}]},
            {"name": "nobody"},
        ],
        "inhibit_rules": inhibit_rules(),
    }


def _write(file: Path, document: Mapping[str, Any]) -> Path:
    return _write_text(file, yaml.safe_dump(document, sort_keys=False))


def _write_text(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _url(port: int) -> str:
    return f"http://{HERE}:{port}"
