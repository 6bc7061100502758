"""The environment over gateway.yaml: names, types, secrets, and what is refused."""

from pathlib import Path

import pytest

from breaker.core.errors import ConfigError
from breaker.policy.environ import variables
from breaker.policy.load import load
from tests.policy.conftest import Problems, Write


def test_a_variable_replaces_the_value_of_the_file(folder: Path, write: Write) -> None:
    """One image, many places: only the variables differ."""
    write("gateway.yaml", "cluster: file\nstore: {url: embedded, timeout: 50ms}\n")
    gateway = load(
        folder,
        {
            "BREAKER_CLUSTER": "staging",
            "BREAKER_STORE__URL": "redis://h:1",
            "BREAKER_LIMITS__CONNECTIONS": "7",
            "BREAKER_LOG__SAMPLE": "0.25",
            "BREAKER_COOKIES": "true",
            "BREAKER_DRAIN__DELAY": "3s",
            "BREAKER_CONFIG": "/elsewhere",
            "PATH": "/bin",
        },
    ).gateway
    assert (gateway.cluster, gateway.store.url, gateway.store.timeout_ms) == ("staging", "redis://h:1", 50)
    assert (gateway.connections_max, gateway.log_sample, gateway.cookies) == (7, 0.25, True)
    assert gateway.drain_delay_ms == 3000


def test_text_stays_text(folder: Path) -> None:
    """A user may be called 42."""
    gateway = load(folder, {"BREAKER_STORE__USERNAME": "42", "BREAKER_STORE__PASSWORD": "x"}).gateway
    assert gateway.store.username == "42"


def test_a_password_comes_from_the_environment_before_the_file(folder: Path, write: Write) -> None:
    """The variable carries the secret itself; it is shown nowhere."""
    write("secrets/store", "from-file")
    write("gateway.yaml", "store: {password_file: secrets/store}\n")
    assert load(folder, {}).gateway.store.password == "from-file"
    config = load(folder, {"BREAKER_STORE__PASSWORD": "from-env"})
    assert config.gateway.store.password == "from-env"
    assert "from-env" not in repr(config)


def test_a_url_in_the_environment_may_carry_the_password(folder: Path) -> None:
    """Platforms hand out `redis://user:secret@host` as one variable."""
    store = load(folder, {"BREAKER_STORE__URL": "rediss://me:p%40ss@h:6380/1"}).gateway.store
    assert (store.url, store.username, store.password) == ("rediss://h:6380/1", "me", "p@ss")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "BREAKER_STORE__ULR",
            "x",
            "unknown variable BREAKER_STORE__ULR (did you mean 'BREAKER_STORE__URL'?)",
        ),
        ("BREAKER_STORE_URL", "x", "unknown variable BREAKER_STORE_URL (did you mean 'BREAKER_STORE__URL'?)"),
        (
            "BREAKER_CALLERS",
            "[]",
            "`callers` is a list, which no variable can carry: write it in gateway.yaml",
        ),
        (
            "BREAKER_PAYLOAD_KEYS",
            "x",
            "`payload_keys` is a list, which no variable can carry: write it in gateway.yaml",
        ),
        (
            "BREAKER_OPERATORS__0__ID",
            "x",
            "`operators` is a list, which no variable can carry: write it in gateway.yaml",
        ),
        ("BREAKER_JOBS__IN_FLIGHT", "0", "`in_flight`: 0 is out of bounds: at least 1"),
        (
            "BREAKER_ALERTS__CHANNELS__OPS__URL",
            "http://ops",
            "`alerts.channels` is a mapping, which no variable can carry: write it in gateway.yaml",
        ),
        (
            "BREAKER_ALERTS__ROUTES",
            "[]",
            "`alerts.routes` is a list, which no variable can carry: write it in gateway.yaml",
        ),
        (
            "BREAKER_ALERTS__REPEET",
            "1h",
            "unknown variable BREAKER_ALERTS__REPEET (did you mean 'BREAKER_ALERTS__REPEAT'?)",
        ),
        ("BREAKER_ALERTS__REPEAT", "299s", "`repeat`: 299s is too short: at least 5m"),
        ("BREAKER_LISTEN", "8080", "`listen`: '8080' is not host:port, such as 127.0.0.1:8080 or [::1]:8080"),
        ("BREAKER_LIMITS__CONNECTIONS", "many", "`connections` is 'many'; it must be a whole number"),
        ("BREAKER_COOKIES", "yes", "`cookies` is 'yes'; it must be true or false"),
    ],
)
def test_a_wrong_variable_is_a_problem_at_its_own_name(
    variable: str, value: str, says: str, problems: Problems
) -> None:
    """No file is at fault, and the message must not point at one."""
    assert problems(**{variable: value}) == [f"${variable}: {says}"]


def test_a_wrong_password_url_is_not_repeated(folder: Path) -> None:
    """Not even when nothing else about it is right."""
    with pytest.raises(ConfigError) as caught:
        load(folder, {"BREAKER_STORE__URL": "http://me:hunter2@h"})
    assert "hunter2" not in str(caught.value)


def test_every_scalar_of_the_process_has_a_variable() -> None:
    """And no entry of a list has."""
    known = variables()
    assert known["BREAKER_STORE__URL"] == "store.url"
    assert known["BREAKER_LIMITS__HEAD_TIMEOUT"] == "limits.head_timeout"
    assert known["BREAKER_JOBS__IN_FLIGHT"] == "jobs.in_flight"
    assert known["BREAKER_ALERTS__GROUP_WAIT"] == "alerts.group_wait"
    lists = ("CALLERS", "OPERATORS", "PAYLOAD_KEYS", "CHANNELS", "ROUTES")
    assert not any(word in name for name in known for word in lists)
