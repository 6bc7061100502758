"""What is said about alerts, channels and routes that are wrong: every rule, on both sides of its edge."""

import base64

import pytest

from breaker.core.errors import ConfigError
from breaker.policy.load import load
from tests.policy.conftest import GATEWAY, PIPELINE, Problems, Write

B = "pipelines/billing.yaml"
SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()
AM = "{type: alertmanager, url: 'http://am:9093'}"
ROUTES = "routes: [{severity: critical, to: [ops]}]"

# What stands in `alerts:` of an operation, and the start of the only problem.
OPERATION = [
    ("utilisation: 0.0", "7:27: `utilisation`: 0.0 is out of bounds: more than 0"),
    ("utilisation: 10, for: 0s", "OK"),
    ("utilisation: 10.1", "7:27: `utilisation`: 10.1 is out of bounds: at most 10"),
    ("utilisation: 90%", "7:27: `utilisation` is '90%'; it must be a number"),
    ("utilisation: 0.75", "7:27: `alerts.clear` 0.75, its default, is not less than `alerts.utilisation` 0.75"),
    ("utilisation: 0.76", "OK"),
    ("clear: 0.9", "7:21: `alerts.clear` 0.9 is not less than `alerts.utilisation` 0.9"),
    ("clear: 0.89", "OK"),
    ("clear: 0", "7:21: `clear`: 0 is out of bounds: more than 0"),
    ("for: 1d", "OK"),
    ("for: 86401s", "7:19: `for`: 86401s is too long: at most 1d"),
    ("for: 2", "7:19: `for`: 2 has no unit"),
    ("objective: 0.5", "OK"),
    ("objective: 0.49", "7:25: `objective`: 0.49 is out of bounds: at least 0.5"),
    ("objective: 0.9999", "OK"),
    ("objective: 0.99991", "7:25: `objective`: 0.99991 is out of bounds: at most 0.9999"),
    ("routes: []", "7:22: `routes` is empty: at least one is needed"),
    ("routes: [ops]", "7:23: unknown channel 'ops': gateway.yaml has no `alerts.channels`"),
    ("utilization: 0.8", "7:14: unknown key `utilization` (did you mean 'utilisation'?)"),
]  # fmt: skip


@pytest.mark.parametrize(("alerts", "problem"), OPERATION)
def test_wrong_alerts_of_an_operation_are_one_problem_at_their_place(
    alerts: str, problem: str, write: Write, problems: Problems
) -> None:
    """A threshold that is never reached is an alert that somebody relies on."""
    write(B, f"{PIPELINE}    alerts: {{{alerts}}}\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"{B}:{problem}")


# The one channel, `ops`, which two routes name; and the start of the only problem.
CHANNEL = [
    (AM, "OK"),
    ("{type: alertmanager}", "4:10: channel 'ops' needs `url`, as it is of `type: alertmanager`"),
    ("{type: alertmanager, url: 'http://am:9093', secret_file: secrets/hook}", "4:54: `secret_file` has no effect with `type: alertmanager`"),
    ("{type: pagerduty, routing_key_file: secrets/pagerduty}", "OK"),
    ("{type: pagerduty, routing_key_file: secrets/pagerduty, url: 'https://events.eu.pagerduty.com/v2/enqueue'}", "OK"),
    ("{type: pagerduty}", "4:10: channel 'ops' needs `routing_key_file`, as it is of `type: pagerduty`"),
    ("{type: pagerduty, routing_key_file: secrets/pagerdty}", "4:46: `routing_key_file`: there is no file"),
    ("{type: pagerduty, routing_key_file: secrets/two}", "4:46: `routing_key_file`: "),
    ("{type: pagerduty, routing_key: abc}", "4:28: unknown key `routing_key` (did you mean 'routing_key_file'?)"),
    ("{type: slack, url_file: secrets/slack}", "OK"),
    ("{type: slack}", "4:10: channel 'ops' needs `url_file`, as it is of `type: slack`"),
    ("{type: slack, url: 'https://hooks.example.com/T0/hush'}", "4:24: the URL of Slack's incoming webhook is a secret: put it into a file and state `url_file`"),
    ("{type: slack, url_file: secrets/slack, secret_file: secrets/hook}", "4:49: `secret_file` has no effect with `type: slack`: leave it out"),
    ("{type: slack, url_file: secrets/pagerduty}", "4:34: `url_file`: "),
    ("{type: webhook, url: 'https://example.com/alerts', secret_file: secrets/hook}", "OK"),
    ("{type: webhook, url: 'https://example.com/alerts', secret_file: secrets/rotated}", "OK"),
    ("{type: webhook, url: 'https://example.com/alerts'}", "4:10: channel 'ops' needs `secret_file`: example.com could not tell our messages from others'"),
    ("{type: webhook, url: 'http://127.0.0.1:9104/alerts'}", "OK"),
    ("{type: webhook, url: 'http://[::1]:9104/alerts'}", "OK"),
    ("{type: webhook, url: 'http://localhost:9104/alerts'}", "OK"),
    ("{type: webhook, url: 'http://128.0.0.1:9104/alerts'}", "4:10: channel 'ops' needs `secret_file`: 128.0.0.1"),
    ("{type: webhook, url: 'http://10.0.0.5:9104/alerts'}", "4:10: channel 'ops' needs `secret_file`: 10.0.0.5"),
    ("{type: webhook, url: 'http://localhost.example.com/'}", "4:10: channel 'ops' needs `secret_file`: localhost.example.com"),
    ("{type: webhook, secret_file: secrets/hook}", "4:10: channel 'ops' needs `url`, as it is of `type: webhook`"),
    ("{type: webhook, url: 'https://example.com', secret_file: secrets/pagerduty}", "4:67: `secret_file`: "),
    ("{type: webhook, url: 'ftp://example.com', secret_file: secrets/hook}", "4:31: `url`: 'ftp://example.com' is not a URL that can be used here"),
    ("{type: webhook, url: 'https://', secret_file: secrets/hook}", "4:31: `url`: 'https://' has no host"),
    ("{type: webhook, url: 'https://example.com/?k=1', secret_file: secrets/hook}", "4:31: `url`: 'https://example.com/?k=1' has a query or fragment"),
    ("{type: webhook, url: 'https://me:hush@example.com', secret_file: secrets/hook}", "4:31: `url`: the URL carries a user or password"),
    ("{type: pagerdutty, routing_key_file: secrets/pagerduty}", "4:17: `type`: unknown value 'pagerdutty' (did you mean 'pagerduty'?)"),
    ("{url: 'http://am:9093'}", "4:10: `type` is missing"),
    ("slack", "4:10: `ops` is 'slack'; it must be a mapping"),
]  # fmt: skip


@pytest.fixture
def secrets(write: Write) -> None:
    """A good file for each type, and one with two words."""
    write("secrets/pagerduty", "hushhushhushhushhushhushhushhush\n")
    write("secrets/slack", "https://hooks.example.com/services/T0/hush\n")
    write("secrets/hook", SECRET + "\n")
    write("secrets/rotated", f"{SECRET}\nwhsec_{'B' * 32}\n")
    write("secrets/two", "hush hush\n")


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(("channel", "problem"), CHANNEL)
def test_a_wrong_channel_is_one_problem_at_its_place_that_tells_no_secret(
    channel: str, problem: str, write: Write, problems: Problems
) -> None:
    """It is found when it is written, and not on the night when nobody was told."""
    more = "routes: [{severity: critical, to: [ops]}, {severity: warning, to: [ops]}]"
    write("gateway.yaml", f"{GATEWAY}alerts:\n  channels:\n    ops: {channel}\n  {more}\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"gateway.yaml:{problem}")
        assert "hush" not in found[0]


@pytest.mark.parametrize(
    ("channel", "file", "says"),
    [
        ("pagerduty, routing_key_file: s", "two words", "s does not hold one routing key"),
        ("pagerduty, routing_key_file: s", "k" * 201, "s does not hold one routing key"),
        ("pagerduty, routing_key_file: s", "", "s is empty"),
        ("slack, url_file: s", "hooks.example.com/hush", "s does not hold one http or https URL"),
        ("slack, url_file: s", "https://a.example/hush\nhttps://b.example", "s does not hold one http or https"),
        ("webhook, url: 'https://a.example', secret_file: s", f"{SECRET}\nhush", "s holds a line that is not whsec_"),
        ("webhook, url: 'https://a.example', secret_file: s", f"{SECRET}\n{SECRET}", "s holds one secret twice"),
    ],
)  # fmt: skip
def test_a_secret_of_another_form_is_found_and_not_repeated(
    channel: str, file: str, says: str, write: Write, problems: Problems
) -> None:
    """The two files are easily confused, and the messages stand in logs."""
    write("s", file)
    write("gateway.yaml", f"alerts: {{channels: {{ops: {{type: {channel}}}}}, {ROUTES}}}\n")
    (found,) = problems()
    assert says in found
    assert "hush" not in found


@pytest.mark.usefixtures("secrets")
def test_a_secret_in_a_url_is_not_repeated_with_the_message(write: Write, problems: Problems) -> None:
    """Who put Slack's URL into the wrong field reads why, and the log does not get it."""
    write(
        "gateway.yaml",
        f"alerts: {{channels: {{ops: {{type: slack, url: 'https://a.example/hush'}}}}, {ROUTES}}}",
    )
    assert [("hush" in found, "url_file" in found) for found in problems()] == [(False, True)]


# What stands behind `alerts:` of gateway.yaml, one line each, and the start of the only problem.
PROCESS = [
    (f"channels: {{ops: {AM}}}", "2:14: no route names the channel 'ops', so nobody is ever told there"),
    (f"channels: {{ops: {AM}}}\n  {ROUTES}", "OK"),
    (f"channels: {{ops: {AM}, am: {AM}}}\n  {ROUTES}", "2:64: no route names the channel 'am'"),
    (f"channels: {{ops: {AM}, am: {AM}}}\n  routes: [{{severity: none, to: [ops], backup: [am]}}]", "OK"),
    (f"channels: {{Ops: {AM}}}", "2:14: `Ops`: 'Ops' is not a name"),
    (f"chanels: {{ops: {AM}}}\n  {ROUTES}", "2:3: unknown key `chanels` (did you mean 'channels'?)"),
    ("channels: {}", "2:13: `channels` is empty: at least one is needed"),
    ("channels: [ops]", "2:13: `channels` is a list; it must be a mapping"),
    ("routes: []", "2:11: `routes` is empty: at least one is needed"),
    (ROUTES, "2:38: unknown channel 'ops': gateway.yaml has no `alerts.channels`"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [opps]}}]", "3:38: unknown channel 'opps' (did you mean 'ops'?)"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: []}}]", "3:37: `to` is empty: at least one is needed"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [ops], backup: []}}]", "3:52: `backup` is empty"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [ops], backup: [am]}}]", "3:53: unknown channel 'am' (there is ops)"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [ops], backup: [ops]}}]", "3:53: 'ops' is told first already: a backup is another channel"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [ops, ops]}}]", "3:43: 'ops' stands twice: once is enough"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [ops], backup_after: 1m}}]", "3:44: `backup_after` has no effect without `backup`"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: critical, to: [ops]}}, {{severity: critical, to: [ops]}}]", "3:56: two routes are for 'critical': name all channels in one"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{severity: crit, to: [ops]}}]", "3:23: `severity`: unknown value 'crit' (did you mean 'critical'?)"),
    (f"channels: {{ops: {AM}}}\n  routes: [{{to: [ops]}}]", "3:12: `severity` is missing"),
    ("group_wait: 10m", "OK"),
    ("group_wait: 601s", "2:15: `group_wait`: 601s is too long: at most 10m"),
    ("keep: 0s", "OK"),
    ("keep: 1h", "OK"),
    ("keep: 61m", "2:9: `keep`: 61m is too long: at most 1h"),
    ("group_interval: 10s", "OK"),
    ("group_interval: 9999ms", "2:19: `group_interval`: 9999ms is too short: at least 10s"),
    ("group_interval: 4h", "OK"),
    ("group_interval: 5h", "2:19: `repeat` 4h is less than `group_interval` 5h"),
    ("group_interval: 25h", "2:19: `group_interval`: 25h is too long: at most 1d"),
    ("group_interval: 10m\n  repeat: 599s", "3:11: `repeat` 599s is less than `group_interval` 10m"),
    ("repeat: 5m", "OK"),
    ("repeat: 299s", "2:11: `repeat`: 299s is too short: at least 5m"),
    ("repeat: 8d", "2:11: `repeat`: 8d is too long: at most 7d"),
    ("runbooks: https://wiki.example.com/breaker/", "OK"),
    ("runbooks: docs/runbooks", "2:13: `runbooks`: 'docs/runbooks' is not a URL"),
    ("dashboards: 'https://grafana.example.com/?orgId=1'", "2:15: `dashboards`: "),
]  # fmt: skip


@pytest.mark.parametrize(("alerts", "problem"), PROCESS)
def test_wrong_alerts_of_the_process_are_one_problem_at_their_place(
    alerts: str, problem: str, write: Write, problems: Problems
) -> None:
    """One mistake is one sentence: neither the channel nor its routes are reported for the other's sake."""
    write("gateway.yaml", f"alerts:\n  {alerts}\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"gateway.yaml:{problem}")


def test_backup_after_has_an_upper_bound(write: Write, problems: Problems) -> None:
    """Who hears of it an hour later hears of it from customers."""
    text = "alerts: {{channels: {{ops: {am}, b: {am}}}, routes: [{{severity: none, to: [ops], backup: [b], backup_after: {after}}}]}}"
    write("gateway.yaml", text.format(am=AM, after="1h"))
    assert problems() == []
    write("gateway.yaml", text.format(am=AM, after="3601s"))
    (found,) = problems()
    assert "`backup_after`: 3601s is too long: at most 1h" in found


def test_an_operation_may_name_a_channel_that_no_route_names(write: Write, problems: Problems) -> None:
    """Finance hears of invoices alone."""
    write("gateway.yaml", f"alerts: {{channels: {{ops: {AM}}}}}\n")
    write(B, f"{PIPELINE}    alerts: {{routes: [ops]}}\n")
    assert problems() == []


def test_a_misspelt_channel_of_an_operation_is_found_across_files(write: Write, problems: Problems) -> None:
    """One problem, in the file of the operation: the channel itself is not accused of being unused."""
    write("gateway.yaml", f"alerts: {{channels: {{finance: {AM}}}}}\n")
    write(B, f"{PIPELINE}    alerts: {{routes: [finanse]}}\n")
    assert problems() == [f"{B}:7:23: unknown channel 'finanse' (did you mean 'finance'?)"]
    write(B, f"{PIPELINE}    alerts: {{routes: [finance, finance]}}\n")
    assert problems() == [f"{B}:7:32: 'finance' stands twice: once is enough"]


@pytest.mark.parametrize(
    "gateway",
    [
        "alerts: {channels: [finance]}",
        f"alert: {{channels: {{finance: {AM}}}}}",
        f"alerts: {{chanels: {{finance: {AM}}}}}",
        "alerts: finance",
        "alerts: {channels: {finance: {type: slak}}}",
        "alerts: {channels: {finance",
    ],
)
def test_a_mistake_around_channels_does_not_make_every_operation_wrong(
    gateway: str, write: Write, problems: Problems
) -> None:
    """With forty operations the one problem would be lost among the forty that follow from it."""
    write("gateway.yaml", gateway + "\n")
    write(B, f"{PIPELINE}    alerts: {{routes: [finance]}}\n")
    found = problems()
    assert len(found) == 1, found
    assert found[0].startswith("gateway.yaml:")


def test_another_mistake_in_the_process_does_not_hide_an_unknown_channel(
    write: Write, problems: Problems
) -> None:
    """One run of `validate`, not one per mistake."""
    write("gateway.yaml", f"listen: x\nalerts: {{channels: {{ops: {AM}}}, {ROUTES}, group_wait: 5}}\n")
    write(B, f"{PIPELINE}    alerts: {{routes: [op]}}\n")
    assert [found.partition(": ")[0] for found in problems()] == [
        "gateway.yaml:1:9",
        "gateway.yaml:2:127",
        f"{B}:7:23",
    ]


def test_no_message_about_a_gateway_that_cannot_be_read_names_a_channel(
    write: Write, problems: Problems
) -> None:
    """What is not there names no channels; what cannot be read is not known."""
    path = write(B, f"{PIPELINE}    alerts: {{routes: [ops]}}\n")
    (path.parents[1] / "gateway.yaml").unlink()
    (found,) = problems()
    assert "gateway.yaml" in found
    assert "channel" not in found


def test_the_error_itself_does_not_carry_what_a_secret_file_holds(write: Write) -> None:
    """A traceback is shown to more people than the file."""
    path = write("s", "not-a-url/hush")
    write("gateway.yaml", f"alerts: {{channels: {{ops: {{type: slack, url_file: s}}}}, {ROUTES}}}\n")
    with pytest.raises(ConfigError) as caught:
        load(path.parent, {})
    assert "hush" not in str(caught.value)
