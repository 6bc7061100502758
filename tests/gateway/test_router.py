"""Which operation a call is for, by the path as it was sent."""

import asyncio

import pytest

from breaker.core.model import Downstream, Match, Operation
from breaker.gateway.downstream import Pool
from breaker.gateway.router import Route, Router
from breaker.gateway.work import Work, work_of
from breaker.store.lane import Lane


def work(name: str, method: str, template: str) -> Work:
    pipeline = name.partition(".")[0]
    operation = Operation(
        name=name, pipeline=pipeline, team="t", match=Match(method=method, template=template),
        downstream=Downstream(url="http://127.0.0.1:1"),
    )  # fmt: skip
    return work_of(operation, Pool(operation.downstream), Lane(name, ()), cookies=False)


@pytest.fixture
def router() -> Router:
    async def build() -> Router:
        return Router(
            [
                work("billing.charge", "POST", "/invoices/{invoice_id}/charge"),
                work("billing.get", "GET", "/invoices/{invoice_id}"),
                work("billing.latest", "GET", "/invoices/latest"),
                work("billing.root", "GET", "/"),
            ]
        )

    return asyncio.run(build())


def found(router: Router, method: str, path: str) -> tuple[str, dict[str, str]]:
    route = router.find(method, path)
    assert isinstance(route, Route)
    return route.work.operation.name, route.parameters


def test_a_literal_segment_goes_before_a_parameter(router: Router) -> None:
    """`latest` is no invoice id, however the templates are ordered."""
    assert found(router, "GET", "/billing/invoices/latest") == ("billing.latest", {})
    assert found(router, "GET", "/billing/invoices/17") == ("billing.get", {"invoice_id": "17"})


def test_a_literal_that_leads_nowhere_falls_back_to_the_parameter(router: Router) -> None:
    """An invoice may be called `latest` where only its charge is asked for."""
    assert found(router, "POST", "/billing/invoices/latest/charge") == (
        "billing.charge",
        {"invoice_id": "latest"},
    )


def test_parameters_are_passed_as_they_were_sent(router: Router) -> None:
    """An encoded slash stays one segment, and stays encoded."""
    assert found(router, "GET", "/billing/invoices/a%2Fb")[1] == {"invoice_id": "a%2Fb"}


def test_head_goes_where_get_goes(router: Router) -> None:
    assert found(router, "HEAD", "/billing/invoices/17")[0] == "billing.get"


def test_the_root_of_a_pipeline_can_be_an_operation(router: Router) -> None:
    assert found(router, "GET", "/billing")[0] == "billing.root"
    assert found(router, "GET", "/billing/")[0] == "billing.root"


def test_another_method_is_told_which_ones_there_are(router: Router) -> None:
    """A 405 has to say what is allowed."""
    assert router.find("DELETE", "/billing/invoices/17") == ("GET",)


@pytest.mark.parametrize(
    "path",
    ["/", "/nope", "/billing/nope", "/billing/invoices/", "/billing/invoices/17/", "/billing//invoices/17",
     "/Billing/invoices/17", "/billing/invoices/17/charge/x"],
)  # fmt: skip
def test_other_paths_belong_to_no_operation(router: Router, path: str) -> None:
    assert router.find("GET", path) == ()


@pytest.mark.parametrize(
    "segment", [".", "..", "%2e%2e", "%2E.", "..%2f..", "a%2F..%2Fb", "%2e", "..%5c..", "%00", "1\\..\\z"]
)
def test_dots_belong_to_no_operation(router: Router, segment: str) -> None:
    """What a downstream makes of `..` we cannot know, so it never gets one, plain or hidden."""
    assert router.find("GET", f"/billing/invoices/{segment}") == ()
