"""
Prometheus and Alertmanager beside the demonstration.

For who has them, and sees the gateway in them without writing a line; and for who has not, and must not miss anything else.
"""

import shutil
import socket
import subprocess
from pathlib import Path

import aiohttp
import pytest
import yaml

from breaker.core.config import Config
from breaker.demo import monitoring
from breaker.demo.monitoring import alertmanager_config, programs, prometheus_config
from breaker.demo.preflight import free_port, receiver_addresses
from breaker.demo.processes import Processes
from breaker.policy.load import load
from breaker.signals import rules
from tests.demo.story import CONFIG

HOOK = "http://127.0.0.1:9104/alertmanager"


@pytest.fixture
def config() -> Config:
    return load(CONFIG, {})


def checked(*command: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    print(done.stdout, done.stderr)
    return done


@pytest.mark.parametrize(
    ("admin", "target"), [("http://127.0.0.1:8081", "127.0.0.1:8081"), ("http://[::1]:81", "[::1]:81")]
)
def test_promtool_accepts_what_prometheus_gets(
    config: Config, tmp_path: Path, admin: str, target: str
) -> None:
    """With the rules of the configuration, all of them."""
    made = prometheus_config(admin, "127.0.0.1:9093")
    assert made["scrape_configs"][0]["static_configs"] == [{"targets": [target]}]
    (tmp_path / "rules").mkdir()
    for name, text in rules.files_of(config).items():
        (tmp_path / "rules" / name).write_text(text)
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(made))
    done = checked("promtool", "check", "config", tmp_path / "prometheus.yaml")
    assert done.returncode == 0
    assert f"{len(rules.files_of(config))} rule files found" in done.stdout


def test_amtool_accepts_what_alertmanager_gets(tmp_path: Path) -> None:
    """And each alert goes to the receiver, but for the one that only shows that alerts arrive."""
    file = tmp_path / "alertmanager.yaml"
    file.write_text(yaml.safe_dump(alertmanager_config(HOOK)))
    assert checked("amtool", "check-config", file).returncode == 0
    route = ("amtool", "config", "routes", "test", f"--config.file={file}")
    for severity, receiver in (
        ("critical", "demonstration"),
        ("warning", "demonstration"),
        ("none", "nobody"),
    ):
        assert (
            checked(*route, "alertname=BreakerOverCapacity", f"severity={severity}").stdout.strip()
            == receiver
        )


def test_alertmanager_groups_and_is_quiet_as_the_gateway_is() -> None:
    """Two ways that disagree about what is told would be read as two incidents."""
    shipped = yaml.safe_load((CONFIG.parent / "deploy/alertmanager/alertmanager.yaml").read_text())
    made = alertmanager_config(HOOK)
    assert made["route"]["group_by"] == shipped["route"]["group_by"]
    assert made["inhibit_rules"] == shipped["inhibit_rules"]


async def started(config: Config, folder: Path, path: str) -> monitoring.Started:
    async with aiohttp.ClientSession() as session, Processes(folder, {"PATH": path}) as processes:
        return await monitoring.start(
            config, processes, session, admin_url="http://127.0.0.1:9", receiver_url="http://127.0.0.1:9"
        )


async def test_what_is_not_installed_is_one_line_that_says_how_to_get_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And everything else goes on: nothing is raised, and nothing is started."""
    monkeypatch.setattr(monitoring, "MORE_PATH", "")
    nothing = await started(config, tmp_path, "/nowhere")
    assert (nothing.prometheus, nothing.alertmanager) == (None, None)
    assert nothing.said == (
        "Prometheus and Alertmanager are not installed, and left out: apt install prometheus prometheus-alertmanager",
    )
    assert list(tmp_path.iterdir()) == []


def test_each_is_found_by_the_names_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's alertmanager is called otherwise than everybody else's."""
    monkeypatch.setattr(monitoring, "MORE_PATH", "")
    environ = {"PATH": str(tmp_path)}
    assert programs(environ).missing().startswith("Prometheus and Alertmanager are not")
    for name in ("prometheus", "alertmanager", "prometheus-alertmanager"):
        (tmp_path / name).touch(mode=0o755)
        assert tmp_path / name in map(
            Path, filter(None, (programs(environ).prometheus, programs(environ).alertmanager))
        )
    (tmp_path / "prometheus").unlink()
    assert programs(environ).missing().startswith("Prometheus is not installed")


async def test_one_that_does_not_come_up_is_said_with_its_own_words_and_left_out(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation of what nobody needs does not stop a demonstration."""
    monkeypatch.setattr(monitoring, "MORE_PATH", "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/prometheus").write_text("#!/bin/sh\necho wrong version; exit 1\n")
    (tmp_path / "bin/prometheus").chmod(0o755)
    found = await started(config, tmp_path, str(tmp_path / "bin"))
    assert found.prometheus is None
    assert found.said[0].startswith("Alertmanager is not installed")
    assert found.said[1] == "left out: prometheus did not start: wrong version"


def test_a_taken_port_is_passed_over() -> None:
    """Another Prometheus of this machine keeps its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = sock.getsockname()[1]
        assert free_port(taken) > taken
    assert free_port(taken) == taken


def test_the_receiver_listens_where_the_channels_of_this_machine_send(tmp_path: Path) -> None:
    """Any other channel is somebody else's, and is left alone."""
    folder = tmp_path / "config"
    shutil.copytree(CONFIG, folder, ignore=shutil.ignore_patterns("secrets"))
    file = folder / "gateway.yaml"
    here = 'demo: { type: webhook, url: "http://127.0.0.1:9104/alerts" }'
    assert here in file.read_text()
    secret = tmp_path / "config/hook"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    file.write_text(
        file.read_text()
        .replace(
            here,
            here + '\n    far: { type: webhook, url: "https://on-call.example/alerts", secret_file: hook }',
        )
        .replace("to: [demo]", "to: [demo, far]")
    )
    found = receiver_addresses(load(folder, {}))
    assert {name: (address.host, address.port) for name, address in found.items()} == {
        "demo": ("127.0.0.1", 9104)
    }
    assert "alerts.channels.demo.url in" in found["demo"].setting
