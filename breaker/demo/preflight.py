"""
Preflight: what must be true of this machine before `breaker up` starts anything.

Each thing that is wrong is one line that names it, and says what to do.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from breaker.core.alert_policy import ChannelType
from breaker.core.config import Config
from breaker.core.errors import StartError
from breaker.demo.receiver import PORT as RECEIVER_PORT
from breaker.store.embedded_folder import make_private

DOWNSTREAMS = ("support", "billing", "onboarding")
HERE = "127.0.0.1"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HTTP_PORT = 80
_PORTS_TRIED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where something will listen, and the setting that says so."""

    host: str
    port: int
    whose: str
    setting: str


def gateway_addresses(config: Config) -> tuple[Address, Address]:
    """The callers' listener and the admin listener."""
    gateway = config.gateway
    return (
        _address(f"//{gateway.listen}", "the gateway's listen", "BREAKER_LISTEN"),
        _address(f"//{gateway.admin}", "the gateway's admin", "BREAKER_ADMIN"),
    )


def downstream_addresses(config: Config) -> dict[str, Address]:
    """
    Where the demo downstreams listen: where the pipelines expect them.

    Raises:
        StartError: A pipeline expects its downstream on another machine, or over TLS.

    """
    urls = {operation.pipeline: operation.downstream.url for operation in config.operations.values()}
    addresses = {}
    for pipeline in DOWNSTREAMS:
        if pipeline not in urls:
            continue
        setting = f"downstream.url in {Path(config.folder) / 'pipelines' / pipeline}.yaml"
        address = _address(urls[pipeline], f"the demo downstream {pipeline}", setting)
        if not _is_here(urls[pipeline]):
            raise StartError(
                f"{setting} is {urls[pipeline]}, but `up` starts its downstreams on this machine "
                "(http://127.0.0.1:PORT); use `breaker serve`"
            )
        addresses[pipeline] = address
    return addresses


def receiver_addresses(config: Config) -> dict[str, Address]:
    """Where the demonstration takes alerts: where the webhook channels of this machine send them, by channel."""
    return {
        name: _address(
            channel.url,
            "the receiver of alerts",
            f"alerts.channels.{name}.url in {Path(config.folder) / 'gateway.yaml'}",
        )
        for name, channel in config.gateway.alerts.channels.items()
        if channel.type is ChannelType.WEBHOOK and _is_here(channel.url)
    }


def free_receiver() -> Address:
    """Where it listens when no channel leads to it: then only Alertmanager tells it anything."""
    return Address(
        host=HERE, port=free_port(RECEIVER_PORT), whose="the receiver of alerts", setting="nothing"
    )


def free_port(preferred: int) -> int:
    """
    That one, or the next that is free, of this machine's own address.

    Raises:
        StartError: None of many.

    """
    for port in range(preferred, preferred + _PORTS_TRIED):
        try:
            _take(HERE, port)
        except OSError:
            continue
        return port
    raise StartError(f"none of the ports {preferred} to {preferred + _PORTS_TRIED - 1} is free")


def check_ports(addresses: list[Address]) -> None:
    """
    Look whether all of them are free.

    Raises:
        StartError: Naming the first that is not.

    """
    for address in addresses:
        try:
            _take(address.host, address.port)
        except OSError as exc:
            raise StartError(
                f"port {address.port} ({address.whose}) cannot be used: {exc.strerror}; end the process "
                f"that has it (ss -ltnp 'sport = :{address.port}'), or change {address.setting}"
            ) from exc


def _take(host: str, port: int) -> None:
    """Bind it and let go; OSError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        # As the servers do: a port that has just been left counts as free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))


def data_folder(environ: Mapping[str, str]) -> Path:
    """
    The folder of the store and of the logs, made when missing.

    Raises:
        StartError: It cannot be written to.

    """
    folder = Path(environ.get("BREAKER_DATA", ".run/store"))
    way_out = "choose another one: BREAKER_DATA=DIR"
    try:
        made = make_private(folder)
    except OSError as exc:
        raise StartError(f"cannot use the data folder {folder}: {exc.strerror or exc}; {way_out}") from exc
    if not os.access(made, os.W_OK | os.X_OK):
        raise StartError(f"no permission to write in the data folder {folder}; {way_out}")
    return made


def _is_here(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _address(url: str, whose: str, setting: str) -> Address:
    parts = urlsplit(url)
    return Address(
        host=parts.hostname or "127.0.0.1", port=parts.port or _HTTP_PORT, whose=whose, setting=setting
    )
