"""On whose behalf a caller may call, and how many there may be."""

from breaker.gateway.tenants import GENERATION_S, OTHER, Tenants


def test_a_call_that_names_nobody_is_the_callers_own() -> None:
    """Limits per tenant hold for callers without customers too."""
    assert Tenants("crm", 10).named(None) == "crm"
    assert Tenants("crm", 10).named("") == "crm"


def test_a_caller_that_may_not_name_tenants_names_none() -> None:
    """Otherwise it could spend another's share."""
    assert Tenants("crm", 0).named("acme") == "crm"


def test_names_of_an_open_form_are_hashed_and_stay_the_same() -> None:
    """They go into keys; and names that start with `_` are ours."""
    tenants = Tenants("crm", 10)
    assert tenants.named("acme gmbh & co") == tenants.named("acme gmbh & co") != "acme gmbh & co"
    assert tenants.named("_other").startswith("h.")
    assert tenants.named("x" * 64) == "x" * 64
    assert len(tenants.named("x" * 65)) == 34
    assert tenants.named("a\n").startswith("h.")


def test_a_caller_that_invents_tenants_shares_one_for_the_rest() -> None:
    """The store must not fill with keys, nor a limit be escaped by a new name for each call."""
    told = []
    tenants = Tenants("crm", 2, on_too_many=lambda: told.append(1))
    assert [tenants.named(name) for name in "abcda"] == ["a", "b", OTHER, OTHER, "a"]
    assert told == [1]


def test_names_that_were_not_used_for_long_make_room() -> None:
    """Ten thousand customers a day are not ten thousand at a time."""
    now = [0.0]
    tenants = Tenants("crm", 2, now=lambda: now[0])
    assert [tenants.named(name) for name in "ab"] == ["a", "b"]
    now[0] += GENERATION_S
    assert [tenants.named(name) for name in "ac"] == ["a", OTHER]
    now[0] += GENERATION_S
    assert [tenants.named(name) for name in "ac"] == ["a", "c"]
