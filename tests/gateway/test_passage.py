"""Which header lines go through."""

from breaker.core.model import Downstream, Match, Operation
from breaker.gateway.passage import NAMES_MAX, OURS_DOWN, OURS_UP, Here, Passage
from breaker.gateway.target import target_of

OPERATION = Operation(
    name="billing.charge", pipeline="billing", team="t", match=Match(method="GET", template="/x"),
    downstream=Downstream(url="http://billing.internal:9102/api"),
)  # fmt: skip


def test_headers_keep_their_order_case_and_repetition() -> None:
    """A caller's signature over its headers must still hold downstream."""
    headers = [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"3")]
    assert Passage(OURS_DOWN).lines(headers) == b"X-B: 1\r\nx-a: 2\r\nX-B: 3\r\n"


def test_hop_by_hop_fields_and_those_of_ours_stay_here() -> None:
    """The caller must not be able to speak for us, nor its connection for the next."""
    headers = [
        (b"Connection", b"keep-alive"), (b"TE", b"trailers"), (b"Transfer-Encoding", b"chunked"), (b"Host", b"x"),
        (b"Breaker-Key", b"secret"), (b"FORWARDED", b"for=1"), (b"X-Forwarded-For", b"1"), (b"X-Forwarded-Prefix", b"/x"), (b"Content-Length", b"3"),
        (b"Accept", b"*/*"),
    ]  # fmt: skip
    assert Passage(OURS_DOWN).lines(headers) == b"Accept: */*\r\n"


def test_what_connection_names_stays_here_too() -> None:
    """RFC 9110 section 7.6.1: also when it is named behind the field itself, in any case."""
    headers = [(b"X-Hop", b"1"), (b"Connection", b"close, x-hop"), (b"X-Hopper", b"2"), (b"x-hop", b"3")]
    assert Passage(OURS_DOWN).lines(headers) == b"X-Hopper: 2\r\n"


def test_a_second_connection_field_counts_as_well() -> None:
    headers = [(b"Connection", b"a"), (b"Connection", b"b"), (b"A", b"1"), (b"B", b"2"), (b"C", b"3")]
    assert Passage(OURS_DOWN).lines(headers) == b"C: 3\r\n"


def test_places_at_the_downstream_are_told_as_the_caller_reaches_them() -> None:
    """A caller that changed only its base URL must be able to follow a Location."""
    up = Passage(OURS_UP, here=Here(OPERATION))
    assert up.lines([(b"Location", b"/api/charges/7?x=1")]) == b"Location: /billing/charges/7?x=1\r\n"
    assert up.lines([(b"Location", b"/other/7")]) == b"Location: /other/7\r\n"  # not below what we front
    assert (
        up.lines([(b"location", b"http://billing.internal:9102/api/charges/7")])
        == b"location: /billing/charges/7\r\n"
    )
    assert up.lines([(b"Location", b"https://elsewhere/x")]) == b"Location: https://elsewhere/x\r\n"
    assert up.lines([(b"Location", b"//elsewhere/x")]) == b"Location: //elsewhere/x\r\n"


def test_names_that_callers_invent_are_not_kept_for_ever() -> None:
    """What is remembered is bounded; what is decided is not changed by that."""
    passage = Passage(OURS_DOWN)
    for number in range(NAMES_MAX + 10):
        assert passage.lines([(b"X-%d" % number, b"1"), (b"Te", b"x")]) == b"X-%d: 1\r\n" % number
    assert len(passage._starts) == NAMES_MAX


def test_a_target_is_the_path_below_the_pipeline_byte_for_byte() -> None:
    assert (
        target_of(None, "/billing/invoices/a%2Fb/charge", "?x=1&&y", {}) == b"/invoices/a%2Fb/charge?x=1&&y"
    )
    assert target_of(None, "/billing", "", {}) == b"/"
    assert target_of(None, "/billing/caf\udcc3\udca9", "", {}) == b"/caf\xc3\xa9"


def test_a_template_of_its_own_takes_the_parameters_as_they_were_sent() -> None:
    target = target_of(
        "/v2/{invoice_id}/pay", "/billing/invoices/a%2Fb/charge", "?q", {"invoice_id": "a%2Fb"}
    )
    assert target == b"/v2/a%2Fb/pay?q"
