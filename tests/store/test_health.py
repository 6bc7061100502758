"""When a store counts as lost, and what brings it back: the rules, and the task that tries it."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from breaker.core.errors import StoreError, StoreRefusedError
from breaker.core.events import DegradedBegan, DegradedEnded, Event, StoreFailed, StoreReset
from breaker.store import health as rules
from breaker.store.health import Health, Returning, StoreKeeper

TIMEOUT_US = 100_000


def a_health(timeout_us: int = TIMEOUT_US) -> Health:
    return Health(timeout_us=timeout_us)


def test_one_failed_exchange_puts_the_store_in_doubt_and_does_not_make_it_down() -> None:
    """A store that forks pauses for once: that is no alert, and no call waits for it twice."""
    health = a_health()
    assert not health.on_failure("timeout", 100_000)
    assert not health.is_usable
    assert not health.is_down
    assert health.on_up() is None
    assert health.is_usable


def test_the_third_failure_in_a_row_is_down_and_told_once() -> None:
    health = a_health()
    told = [health.on_failure("connection", now) for now in (1, 2, 3, 4)]
    assert told == [False, False, True, False]
    assert health.on_up() == 3


def test_a_write_in_between_begins_the_row_again() -> None:
    health = a_health()
    health.on_failure("connection", 1)
    health.on_failure("connection", 2)
    health.on_write()
    assert not health.on_failure("connection", 3)


@pytest.mark.parametrize(
    ("timeout_us", "is_down"), [(300_000, True), (299_999, False)], ids=["at-once", "not-yet"]
)
def test_300_ms_without_a_reply_are_enough(timeout_us: int, *, is_down: bool) -> None:
    """With a long `store.timeout` three failures would take seconds."""
    assert a_health(timeout_us).on_failure("timeout", 10_000_000) is is_down


def test_silence_counts_from_the_first_exchange_that_was_not_answered() -> None:
    health = a_health(140_000)
    assert not health.on_failure("timeout", 140_000)
    assert health.on_failure("timeout", 300_000)


def test_a_clock_that_jumped_is_not_a_lost_store() -> None:
    health = a_health()
    assert not any(health.on_failure("clock", now) for now in range(10))
    assert health.is_usable


def test_a_store_that_has_forgotten_us_is_down_at_once() -> None:
    """What other replicas hold is not in it: whoever asked would be granted all of it."""
    health = a_health()
    assert health.on_failure("reset", 1)
    assert health.is_forgetful
    health.on_up()
    assert not health.is_forgetful


@dataclass
class Shop:
    """What the keeper does with us, and what the store answers to it."""

    errors: list[StoreError | None] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    bugs: list[BaseException] = field(default_factory=list)
    bug: Exception | None = None
    apart: set[str] = field(default_factory=set)
    forgets: bool = False  # which is found out when it is told what it should know
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: StoreKeeper = field(init=False)

    def returning(self) -> Returning:
        return Returning(write=self.write, register=self.register, reopen=self.reopen, lost=self.lost)

    async def write(self) -> None:
        await self._step("write")

    async def register(self) -> None:
        await self._step("register")
        if self.forgets:
            self.forgets = False
            self.keeper.listen(StoreReset("another epoch"))

    def reopen(self, apart: Collection[str]) -> None:
        assert apart == self.apart
        self.done.append("reopen")
        self.opened.set()

    def lost(self) -> None:
        self.done.append("lost")

    async def _step(self, name: str) -> None:
        self.done.append(name)
        await asyncio.sleep(0)
        bug, self.bug = self.bug, None
        if bug:
            raise bug
        error = self.errors.pop(0) if self.errors else None
        if error:
            if hasattr(self, "keeper") and not isinstance(error, StoreRefusedError):
                self.keeper.listen(StoreFailed(error.kind, str(error)))
            raise error

    def is_usable(self) -> bool:
        return self.keeper.health.is_usable

    @property
    def told(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@asynccontextmanager
async def a_shop(monkeypatch: pytest.MonkeyPatch, *errors: StoreError | None) -> AsyncIterator[Shop]:
    monkeypatch.setattr(rules, "PAUSE_S", 0.02)
    monkeypatch.setattr(rules, "RENEW_US", 20_000)
    shop = Shop(errors=list(errors))
    shop.keeper = StoreKeeper(a_health(), shop.events.append, shop.bugs.append, draw=lambda: 0.5)
    shop.keeper.start(shop.returning())
    try:
        yield shop
    finally:
        await shop.keeper.close()
    assert shop.bugs == []


async def test_a_doubt_ends_with_one_write_and_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow answer is no episode."""
    async with a_shop(monkeypatch) as shop:
        shop.keeper.listen(StoreFailed("timeout", "late"))
        assert not shop.is_usable()
        await shop.opened.wait()
        assert shop.is_usable()
        assert shop.done == ["write", "reopen"]
        assert shop.events == []


async def test_a_store_that_refuses_writes_is_down_and_comes_back_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read-only, out of memory, out of disk, busy: it answers, and cannot be used. One alert, both ways."""
    refused = StoreRefusedError("the store refused: OOM")
    async with a_shop(monkeypatch, *[refused] * 5) as shop:
        shop.keeper.listen(StoreFailed("refused", "OOM"))
        await shop.opened.wait()
        assert shop.done == [*["write"] * 3, "lost", *["write"] * 3, "register", "reopen"]
        assert shop.told == ["DegradedBegan", "DegradedEnded"]
        assert shop.events[0] == DegradedBegan("refused", "the store refused: OOM")
        assert isinstance(shop.events[1], DegradedEnded)
        assert shop.events[1].seconds >= 3 * 0.02


async def test_a_refusal_of_one_operation_alone_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken key of one operation must not send all the others to their local share."""
    async with a_shop(monkeypatch) as shop:
        for _ in range(5):
            shop.opened.clear()
            shop.keeper.listen(StoreFailed("refused", "WRONGTYPE"))
            await shop.opened.wait()
        assert shop.events == []


async def test_it_is_not_used_before_everything_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = StoreError("connection refused")
    async with a_shop(monkeypatch, lost, lost, lost, None, lost) as shop:
        shop.keeper.doubt()
        await shop.opened.wait()
        assert shop.done == [*["write"] * 3, "lost", "write", "register", "write", "register", "reopen"]
        assert shop.told == ["DegradedBegan", "DegradedEnded"]


async def test_after_a_reset_the_share_stays_in_force_for_one_renewal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By then every replica has said what it holds; what is forgotten again meanwhile begins another one."""
    async with a_shop(monkeypatch) as shop:
        shop.keeper.listen(StoreReset("another epoch"))
        assert shop.done == ["lost"]
        while shop.done[-1] != "register":
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)  # by now the renewal is being waited for
        shop.keeper.listen(StoreFailed("reset", "flushed"))
        assert not shop.opened.is_set()
        await shop.opened.wait()
        assert shop.done == ["lost", "write", *["register"] * 3, "reopen"]
        assert shop.told == ["DegradedBegan", "DegradedEnded"]


async def test_a_gateway_without_a_store_at_its_start_takes_it_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_shop(monkeypatch) as shop:
        shop.keeper.absent("not there")
        assert not shop.keeper.health.is_usable
        await shop.opened.wait()
        assert shop.done == ["write", "register", "reopen"]
        assert shop.told == ["DegradedBegan", "DegradedEnded"]


async def test_a_mistake_of_ours_does_not_lose_the_store_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_shop(monkeypatch) as shop:
        shop.bug = TypeError("unhashable")
        shop.keeper.doubt()
        await shop.opened.wait()
        assert [str(bug) for bug in shop.bugs] == ["unhashable"]
        shop.bugs.clear()


async def test_a_store_that_forgot_and_went_is_not_hammered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed and emptied: it is tried once a second, as any other that is down."""
    lost = StoreError("connection refused")
    async with a_shop(monkeypatch, lost, lost, lost) as shop:
        began = asyncio.get_running_loop().time()
        shop.keeper.listen(StoreReset("another epoch"))
        await shop.opened.wait()
        assert asyncio.get_running_loop().time() - began >= 3 * 0.02
        assert shop.done == ["lost", *["write"] * 4, "register", "register", "reopen"]


async def test_a_store_that_comes_back_empty_is_not_asked_for_one_renewal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was killed, and has no disk: that it has forgotten us is found out when we bring back what we hold."""
    lost = StoreError("connection refused")
    async with a_shop(monkeypatch, lost, lost, lost) as shop:
        shop.forgets = True
        shop.keeper.doubt()
        await shop.opened.wait()
        assert shop.done == [*["write"] * 3, "lost", "write", "register", "register", "reopen"]


async def test_an_operation_whose_node_fails_is_lost_and_found_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One node of a Cluster: others are asked as before, and its own come back one by one, when it takes a write."""
    async with a_shop(monkeypatch) as shop:
        part = Shop(errors=[StoreError("not asked")] * 3)
        shop.keeper._returning = replace(shop.returning(), part=lambda _: part.returning())
        shop.keeper.listen(StoreFailed("timeout", "late", "billing.charge", is_partial=True))
        assert shop.is_usable()
        assert not shop.keeper.is_usable("billing.charge")
        assert shop.keeper.is_usable("billing.refund")
        await part.opened.wait()
        assert shop.keeper.is_usable("billing.charge")
        assert part.done == [*["write"] * 3, "lost", "write", "register", "reopen"]
        assert shop.done == []
        began, ended = shop.events
        assert isinstance(began, DegradedBegan)
        assert isinstance(ended, DegradedEnded)
        assert (began.operation, ended.operation) == ("billing.charge", "billing.charge")


async def test_a_store_that_is_back_leaves_what_is_apart_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls would be sent to a node that is known to be ill."""
    async with a_shop(monkeypatch) as shop:
        part = Shop(errors=[StoreError("not asked")] * 1_000)
        shop.keeper._returning = replace(shop.returning(), part=lambda _: part.returning())
        shop.keeper.doubt("billing.charge")
        shop.apart = {"billing.charge"}
        shop.keeper.doubt()
        await shop.opened.wait()
        assert shop.is_usable()
        assert not shop.keeper.is_usable("billing.charge")


async def test_what_fails_in_part_and_names_no_operation_is_nobodys_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replicas' own keys are on one node as well; its failure is counted, and keeps nobody from deciding."""
    async with a_shop(monkeypatch) as shop:
        shop.keeper.listen(StoreFailed("timeout", "this replica could not beat", is_partial=True))
        assert shop.is_usable()
        assert shop.keeper._parts == {}
