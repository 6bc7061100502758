"""Letters on their way: order, retries, backups, and what is given up."""

import asyncio
from dataclasses import replace

import pytest

from breaker.core.alert_policy import Channel, ChannelType
from breaker.core.events import LetterEnded
from breaker.core.notify import Kind
from breaker.signals.channels import Answer, Later, Never, Taken
from breaker.signals.outbox import LETTERS_MAX
from breaker.store.alert_book import Entry
from tests.core.alert_world import NOW, REFUSING, fires
from tests.signals.outbox_scene import MINUTE, SECOND, Post, letter

DAY = 86_400
BUSY, REFUSED = Later("answered 503"), Never("answered 404")
CHARGE, CREATE = "billing.charge", "support.create"
A, B = f"{REFUSING}:{CHARGE}", f"{REFUSING}:{CREATE}"


@pytest.fixture
def post() -> Post:
    return Post()


# 1. Order.


async def test_a_letter_is_brought_once_and_is_done_with(post: Post) -> None:
    """Nothing of it is left in the store, and it is told that it was taken."""
    post.post(letter("1"))
    await post.after(0)
    await post.after(3_600)
    assert post.script.heard("pager") == [("firing", [A])]
    assert (post.outbox.entries, post.kept, post.results) == ({}, {}, [("pager", "ok")])


async def test_a_channel_gets_its_letters_in_the_order_in_which_they_were_made(post: Post) -> None:
    """Nobody hears the end before the beginning, however often the beginning is tried."""
    post.script.answers["pager"] = [BUSY, BUSY]
    post.post(letter("1"), letter("2", kind=Kind.RESOLVED), letter("3", "chat"))
    await post.after(0)
    assert post.script.ids("chat") == ["3"], "another channel does not wait for it"
    await post.after(1)
    await post.after(2)
    assert post.script.ids("pager") == ["1", "1", "1", "2"]


async def test_a_channel_gets_one_letter_at_a_time(post: Post) -> None:
    """Two at once could overtake each other."""
    post.script.gate = asyncio.Event()
    post.post(letter("1"), letter("2"))
    post.outbox.deliver()
    post.outbox.deliver()
    assert len(post.outbox._sending) == 1
    post.script.gate.set()
    await post.after(0)
    assert post.script.ids("pager") == ["1", "2"]


async def test_an_end_says_when_it_ended(post: Post) -> None:
    """And nothing else does."""
    post.post(letter("1"), letter("2", kind=Kind.RESOLVED, made_us=NOW + 7))
    await post.after(1)
    assert [message.notices[0].ended_us for _, message in post.script.sent] == [None, NOW + 7]


# 2. Retries.


async def test_what_is_not_taken_is_tried_again_after_longer_and_longer(post: Post) -> None:
    """1, 2, 4 ... 60 s: not sooner, and not later."""
    post.script.always["pager"] = BUSY
    post.post(letter("1"))
    await post.after(0)
    for number, pause in enumerate((1, 2, 4, 8, 16, 32, 60, 60, 60), start=1):
        assert len(post.script.sent) == number
        await post.after(pause - 0.001)
        assert len(post.script.sent) == number
        await post.after(0.001)
    assert set(post.results) == {("pager", "retry")}
    assert (post.kept["1"].tries, post.kept["1"].detail) == (10, "answered 503"), (
        "the next steward goes on from there"
    )
    assert len(set(post.script.ids("pager"))) == 1, "the receiver knows it again"


@pytest.mark.parametrize(("asked", "pause"), [(90.0, 90), (0.5, 1)])
async def test_a_receiver_says_when_it_wants_to_be_asked_again(post: Post, asked: float, pause: int) -> None:
    """Not sooner than that, and not sooner than we would."""
    post.script.answers["pager"] = [Later("answered 429", after_s=asked)]
    post.post(letter("1"))
    await post.after(0)
    await post.after(pause - 0.001)
    assert len(post.script.sent) == 1
    await post.after(0.001)
    assert len(post.script.sent) == 2


async def test_slack_gets_one_message_a_second(post: Post) -> None:
    """More are refused."""
    post.post(*(letter(str(number), "chat") for number in range(3)), letter("4"), letter("5"))
    await post.after(0)
    assert (post.script.ids("chat"), post.script.ids("pager")) == (["0"], ["4", "5"])
    await post.after(0.999)
    assert post.script.ids("chat") == ["0"]
    await post.after(0.001)
    await post.after(1)
    assert post.script.ids("chat") == ["0", "1", "2"]


# 3. What is given up.


async def test_what_a_receiver_will_never_take_is_given_up_at_once(post: Post) -> None:
    """And told aloud; what comes behind it goes on."""
    post.script.answers["pager"] = [REFUSED]
    post.post(letter("1"), letter("2"))
    await post.after(0)
    assert post.results == [("pager", "failed"), ("pager", "ok")]
    assert (post.outbox.entries, post.kept) == ({}, {})


@pytest.mark.parametrize(("age", "result"), [(DAY - 1, "retry"), (DAY, "failed")])
async def test_what_is_not_taken_in_a_day_is_given_up(post: Post, age: int, result: str) -> None:
    """A page of yesterday wakes nobody for a reason."""
    post.script.answers["pager"] = [BUSY]
    post.post(letter("1", backup=("hook",), made_us=NOW - age * SECOND))
    await post.after(0)
    assert post.results[0] == ("pager", result)
    assert ("1" in post.kept) is (result == "retry")


async def test_a_channel_that_was_taken_away_takes_nothing(post: Post) -> None:
    """Its letters must not wait for ever."""
    post.gone.add("pager")
    post.post(letter("1"))
    await post.after(0)
    assert [event.detail for event in post.events if isinstance(event, LetterEnded)] == [
        "the channel is not configured any more"
    ]
    assert post.kept == {}


async def test_too_many_waiting_letters_are_not_joined_by_repeats(post: Post) -> None:
    """What is new is always kept."""
    post.post(*(letter(str(number)) for number in range(LETTERS_MAX - 1)))
    post.post(letter("again", kind=Kind.REPEATED))
    post.post(letter("once more", kind=Kind.REPEATED), letter("new"))
    assert len(post.outbox.entries) == LETTERS_MAX + 1
    assert "once more" not in post.outbox.entries


# 4. Backups.


async def test_a_beginning_that_is_late_goes_to_its_backup_once(post: Post) -> None:
    """After a minute; and to the first as well, when that is back."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", backup=("hook",)))
    await post.after(0)
    await post.after(59.999)
    assert post.script.heard("hook") == []
    await post.after(0.001)
    assert post.script.heard("hook") == [("firing", [A])]
    assert post.kept["1"].was_backed
    for _ in range(5):
        await post.after(60)
    del post.script.always["pager"]
    await post.after(60)
    assert (len(post.script.heard("hook")), post.kept) == (1, {})


async def test_one_channel_of_a_route_is_enough(post: Post) -> None:
    """A backup is for when nobody was told: the chat has it, so who has no duty is not woken for the pager's sake."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", backup=("hook",)), letter("2", "chat", backup=("hook",)))
    for _ in range(3):
        await post.after(60)
    assert (post.script.ids("chat"), post.script.heard("hook")) == (["2"], [])


async def test_a_backup_hears_once_of_what_no_channel_of_a_route_takes(post: Post) -> None:
    """Whether they do not answer, or never will."""
    post.script.always |= {"pager": BUSY, "chat": REFUSED}
    post.post(letter("1", backup=("hook",)), letter("2", "chat", backup=("hook",)))
    await post.after(0)
    assert post.script.heard("hook") == [], "the pager may still take it"
    await post.after(60)
    await post.after(60)
    assert post.script.heard("hook") == [("firing", [A])]


async def test_a_backup_hears_once_of_what_is_late_on_all_channels_of_a_route(post: Post) -> None:
    """The network is away: both of them are late at the same moment."""
    post.script.always |= {"pager": BUSY, "chat": BUSY}
    post.post(letter("1", backup=("hook",)), letter("2", "chat", backup=("hook",)))
    for _ in range(3):
        await post.after(60)
    assert post.script.heard("hook") == [("firing", [A])]


async def test_a_beginning_that_waits_behind_another_is_late_as_well(post: Post) -> None:
    """It was never tried itself: the pager is down, and its second page would else wait for a day."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", backup=("hook",)), letter("2", operations=(CREATE,), backup=("hook",)))
    await post.after(0)
    await post.after(60)
    assert post.script.heard("hook") == [("firing", [A]), ("firing", [B])]
    assert post.outbox.entries["2"].tries == 0


async def test_a_queue_that_only_takes_its_time_needs_no_backup(post: Post) -> None:
    """Slack takes one a second, and each of them: nobody else is woken."""
    post.post(*(letter(str(number), "chat", backup=("hook",), made_us=NOW - MINUTE) for number in range(3)))
    for _ in range(3):
        await post.after(1)
    assert (len(post.script.ids("chat")), post.script.ids("hook")) == (3, [])


async def test_a_beginning_that_is_never_taken_goes_to_its_backup_at_once(post: Post) -> None:
    """And is not left in the store: the next steward would try it again."""
    post.script.answers["pager"] = [REFUSED]
    post.post(letter("1", backup=("hook", "am")))
    await post.after(0)
    assert (post.script.heard("hook"), post.script.heard("am")) == ([("firing", [A])], [("firing", [A])])
    assert (post.outbox.entries, post.kept) == ({}, {})
    assert post.outbox.backed == [((A,), "hook"), ((A,), "am")]


async def test_whoever_had_the_beginning_as_a_backup_is_known_to_have_it(post: Post) -> None:
    """So the end is told to them; and who was told already keeps when."""
    post.script.answers["pager"] = [REFUSED]
    post.post(letter("1", backup=("hook",), operations=(CHARGE, CREATE)))
    await post.after(0)
    known = {A: fires(told={"pager": NOW}), "other": fires(operation="x")}
    found = post.outbox.with_backups(known)
    assert (found[A].told, found["other"]) == ({"hook": post.now_us, "pager": NOW}, known["other"])
    assert post.outbox.with_backups({A: fires(told={"hook": 5})})[A].told == {"hook": 5}


async def test_what_has_ended_before_a_backup_is_told_is_told_to_nobody_else(post: Post) -> None:
    """The trouble is over, and the end waits behind the beginning: to wake a second person would be the worse news."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", operations=(CHARGE, CREATE), backup=("hook",)), letter("2", kind=Kind.RESOLVED))
    await post.after(0)
    await post.after(60)
    assert post.script.heard("hook") == [("firing", [B])]
    assert post.outbox.backed == [((B,), "hook")]


async def test_an_end_that_was_made_while_its_beginning_went_to_a_backup_goes_there_too(post: Post) -> None:
    """In that moment nobody knew yet that it was told there."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", backup=("hook",)))
    await post.after(0)
    await post.after(60)
    assert post.outbox.backed
    post.post(letter("2", kind=Kind.RESOLVED, operations=(CHARGE, CREATE)))
    await post.after(0)
    assert post.script.heard("hook") == [("firing", [A]), ("resolved", [A])]
    assert post.kept.keys() == {"1", "2"}


async def test_an_end_that_is_told_by_itself_is_not_told_twice(post: Post) -> None:
    """The evaluator took note of the backup, and makes an end for each who was told."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", backup=("hook",)))
    await post.after(0)
    await post.after(60)
    post.outbox.backed.clear()
    post.post(letter("2", kind=Kind.RESOLVED), letter("3", "hook", kind=Kind.RESOLVED))
    for _ in range(5):
        await post.after(60)
    assert post.script.heard("hook") == [("firing", [A]), ("resolved", [A])]


async def test_the_next_steward_knows_that_a_backup_was_told(post: Post) -> None:
    """The one before may have died before it could write whom."""
    entry = Entry(letter=letter("1", backup=("hook",)), tries=3, was_backed=True)
    post.outbox.post([entry, Entry(letter=letter("2", kind=Kind.RESOLVED))])
    assert post.outbox.backed == [((A,), "hook")]
    assert post.outbox.entries.keys() == {"1", "2"}


# 5. Alertmanager.


async def test_alertmanager_hears_every_minute_of_what_fires_and_was_told_to_it(post: Post) -> None:
    """It forgets what it is not told again; others do not."""
    post.outbox.fires([fires(told={"am": NOW, "pager": NOW}), fires(operation=CREATE, told={"pager": NOW})])
    await post.after(0)
    await post.after(59.999)
    assert post.script.heard("am") == [("repeated", [A])]
    await post.after(0.001)
    assert len(post.script.heard("am")) == 2
    assert (post.script.heard("pager"), post.results) == ([], [])
    post.outbox.fires([])
    await post.after(60)
    assert len(post.script.heard("am")) == 2


async def test_a_refresh_that_was_not_taken_is_sent_again_soon(post: Post) -> None:
    """Alertmanager ends what it does not hear of for five minutes."""
    post.script.answers["am"] = [BUSY]
    post.outbox.fires([fires(told={"am": NOW})])
    await post.after(0)
    assert post.results == [("am", "retry")]
    await post.after(9.999)
    assert len(post.script.sent) == 1
    await post.after(0.001)
    await post.after(59)
    assert len(post.script.sent) == 2


async def test_a_refresh_never_overtakes_an_end(post: Post) -> None:
    """What has ended would begin anew there."""
    post.script.gate = asyncio.Event()
    post.outbox.fires([fires(told={"am": NOW})])
    post.outbox.deliver()
    post.outbox.fires([])
    post.post(letter("end", "am", kind=Kind.RESOLVED))
    post.outbox.deliver()
    post.script.gate.set()
    await post.after(0)
    assert [kind for kind, _ in post.script.heard("am")] == ["repeated", "resolved"]


# What goes wrong.


async def test_a_mistake_in_one_channel_does_not_stop_the_others_nor_itself_for_ever(post: Post) -> None:
    """It is told, tried again, and its backup is asked as for any other failure."""
    post.script.answers["pager"] = [ValueError("a bug"), ValueError("a bug")]
    post.post(letter("1", backup=("hook",)), letter("2", "chat", operations=(CREATE,)))
    await post.after(0)
    assert [str(bug) for bug in post.bugs] == ["a bug"]
    assert post.script.ids("chat") == ["2"]
    await post.after(59.999)
    assert len(post.script.ids("pager")) == 1
    await post.after(0.001)
    assert post.script.heard("hook") == [("firing", [A])]
    await post.after(60)
    assert (len(post.script.ids("pager")), post.outbox.entries) == (3, {})
    details = {event.detail for event in post.events if isinstance(event, LetterEnded)}
    assert details == {"", "a mistake of ours: ValueError"}


@pytest.mark.parametrize("answer", [Taken(), BUSY, REFUSED])
async def test_who_is_deposed_writes_nothing_of_what_is_still_under_way(post: Post, answer: Answer) -> None:
    """Somebody else has the letters by then."""
    post.script.gate = asyncio.Event()
    post.script.answers["pager"] = [answer]
    post.post(letter("1", backup=("hook",)))
    post.outbox.fires([fires(told={"am": NOW})])
    post.outbox.deliver()
    post.outbox.clear()
    kept = dict(post.kept)
    post.script.gate.set()
    await post.after(0)
    assert (post.kept, post.outbox.entries, post.outbox.backed) == (kept, {}, [])
    await post.after(120)
    assert post.script.ids("pager") == ["1"]


async def test_what_waits_is_told_by_channel_with_since_when_it_is_not_taken(post: Post) -> None:
    """0 for one that was not tried: it is only young."""
    post.script.always["pager"] = BUSY
    post.post(letter("1", made_us=NOW - 7), letter("2"), letter("3", "chat"))
    assert post.outbox.waiting() == {"am": (0, 0), "pager": (0, 2), "chat": (0, 1), "hook": (0, 0)}
    await post.after(0)
    assert post.outbox.waiting() == {"am": (0, 0), "pager": (NOW - 7, 2), "chat": (0, 0), "hook": (0, 0)}


async def test_closing_ends_what_is_under_way(post: Post) -> None:
    """It is not known to be taken, so it stays in the store."""
    post.script.gate = asyncio.Event()
    post.post(letter("1"))
    post.outbox.deliver()
    await post.outbox.close()
    assert list(post.kept) == ["1"]
    assert not post.outbox._sending


async def test_channels_are_those_of_now(post: Post) -> None:
    """A reload may have added one, or made another of its type."""
    hook = Channel(name="hook", type=ChannelType.SLACK, url="https://hook.example.com")
    post.alerting = replace(post.alerting, channels={"hook": hook})
    post.post(letter("1", "hook"), letter("2", "hook"))
    await post.after(0)
    assert post.script.ids("hook") == ["1"]
