"""
Circuits: what this replica sees of the downstreams, and what it knows of their circuits.

1. An ended call is counted in a window of our own; sums go to the store every quarter of a second at most, and at once
   when our window alone would open the circuit, a probe has ended, or the downstream asked for time.
2. The store decides for all replicas. When it says that we are alone with what we see, we open only ourselves: nothing
   starts here until probes of our own have succeeded.
3. The state of a circuit is heard with each answer of the store, and on the channel of all when it moves.
"""

import asyncio
from collections.abc import Mapping

from breaker.core.circuit import (
    Circuit,
    CircuitState,
    Report,
    Trigger,
    bars,
    is_probing,
    note_probes,
    on_probe,
    open_it,
    probes_free,
)
from breaker.core.errors import StoreError
from breaker.core.events import CircuitMoved, CircuitSeen, Listener, LoneReplica, Result, SlowedDown
from breaker.core.model import LEASE_US, Operation
from breaker.core.quorum import Seen, is_over, trips
from breaker.core.window import BUCKETS, Window
from breaker.store.circuit_posts import WORDS, ByHand, CallEnd, Post, changed, draw, outcome_of
from breaker.store.clock import StoreClock
from breaker.store.coalescer import Coalescer
from breaker.store.ending import end
from breaker.store.lane import CIRCUIT_STATES, Lane
from breaker.store.policy import circuit_terms_of

REPORT_S = 0.25
PENDING_MAX = 1_000  # probes and tenants that wait to be told of; leases and pauses run out anyway
FAILURES = frozenset({Result.CONNECT_ERROR, Result.TIMEOUT, Result.SERVER_ERROR})
STRESS = frozenset({Result.SLOW_DOWN, Result.TIMEOUT})


class Circuits:
    """All operations' downstreams, as this replica sees them."""

    def __init__(self, coalescer: Coalescer, clock: StoreClock, *, replica: str, emit: Listener) -> None:
        self._coalescer, self._clock, self._replica, self._emit = coalescer, clock, replica, emit
        self._posts: dict[str, Post] = {}
        self._dirty: dict[str, Post] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def configure(self, operations: Mapping[str, Operation]) -> None:
        """These operations are in force; what was seen of them stays."""
        for name in list(self._posts):
            if name not in operations:
                self._posts.pop(name).lane.on_circuit = None
                self._dirty.pop(name, None)
        for name, operation in operations.items():
            terms = circuit_terms_of(operation.circuit)
            post = self._posts.get(name)
            window_us = terms.window_us if terms else operation.circuit.window_ms * 1_000
            if post is None:
                lane = self._coalescer.lane(name)
                post = self._posts[name] = Post(
                    lane=lane, operation=operation, terms=terms, began=lane.circuit,
                    window=Window(window_us=window_us, generation=lane.generation),
                )  # fmt: skip
                lane.on_circuit = lambda was, moved, post=post: self._on_state(post, was, moved=moved)
                self._emit(CircuitSeen(name, lane.circuit if terms else CircuitState.DISABLED))
            elif post.window.window_us != window_us:
                post.window = Window(window_us=window_us, generation=post.window.generation)
            post.operation, post.terms = operation, terms
            if terms is None and post.is_alone:
                self._join(post, "it has no circuit any more")

    # Before a start.

    def bars_here(self, operation: str) -> int | None:
        """Rule 2: microseconds for which nothing starts on this replica, whatever the store says; None: it may."""
        post = self._posts.get(operation)
        if post is None or post.terms is None or not post.is_alone:
            return None
        now_us = self._clock.now_us()
        keep_probes(post.alone, now_us)
        stop = bars(post.alone, post.terms, now_us)
        return stop[1] if stop else None

    def room_here(self, operation: str, most: int) -> int:
        """How many may start here at once, at most `most`: while we try by ourselves, only probes."""
        post = self._posts.get(operation)
        if post is None or post.terms is None or post.terms.is_shadow or not post.is_alone:
            return most
        now_us = self._clock.now_us()
        keep_probes(post.alone, now_us)
        if bars(post.alone, post.terms, now_us):
            return 0
        return min(most, probes_free(post.alone, post.terms, now_us))

    def is_barred(self, lane: Lane) -> bool:
        """Whether the store must be asked also for an operation without limits: its circuit may not be closed."""
        if lane.circuit not in (CircuitState.CLOSED, CircuitState.DISABLED):
            return True
        post = self._posts.get(lane.operation)
        if post is not None and post.is_alone:
            return True
        return lane.paused_us > 0 and lane.paused_us > self._clock.now_us()

    def began(self, operation: str, id_: str) -> None:
        """Something starts: while we try by ourselves, it is a probe of ours."""
        post = self._posts.get(operation)
        if post is None or post.terms is None or not post.is_alone:
            return
        now_us = self._clock.now_us()
        keep_probes(post.alone, now_us)
        if is_probing(post.alone, post.terms, now_us):
            on_probe(post.alone, id_, now_us, LEASE_US)

    # After its end.

    def ended(self, operation: str, call: CallEnd) -> None:
        """Rule 1. Off everybody's path; never fails."""
        post = self._posts.get(operation)
        if post is None:
            return
        now_us, terms = self._clock.now_us(), post.terms
        is_failure = call.result in FAILURES
        slow_ms = post.operation.circuit.slow_call_ms
        is_slow = slow_ms is not None and call.took_us >= slow_ms * 1_000
        self._note_pause(post, call)
        if terms is None:
            self._tell_soon(post)
            return
        self._note_probe(post, call, is_failure=is_failure or (is_slow and terms.slow_ppm > 0), now_us=now_us)
        if call.generation != post.window.generation or call.result not in FAILURES | {Result.OK}:
            if post.has_news:
                self._tell_soon(post)
            return
        post.window.count(now_us, failed=is_failure, slow=is_slow)
        if (is_failure or is_slow) and post.lane.circuit is CircuitState.CLOSED:
            seen = post.window.seen(now_us)
            if terms.slow_ppm and is_slow and is_over(terms, seen.calls, 0, seen.slow):
                post.stress += 1
            if trips(terms, [seen]):
                self._tell_now(post)
                return
        self._tell_soon(post)

    def report_of(self, operation: str, call: CallEnd, generation: int) -> Report | None:
        """What we see, for a circuit that this replica runs by itself while the store is away."""
        post = self._posts.get(operation)
        if post is None or post.terms is None:
            return None
        asked_us = call.retry_after_us if call.result is Result.SLOW_DOWN else None
        return Report(
            replica=self._replica, generation=generation, seen=post.window.seen(self._clock.now_us()),
            stress=int(call.result in STRESS),
            pause_us=min(asked_us or 0, post.operation.slow_down_max_ms * 1_000),
            probes=((call.id, outcome_of(call, is_failure=call.result in FAILURES)),), draw=draw(),
        )  # fmt: skip

    def begin_anew(self, operation: str) -> None:
        """That circuit has moved: what was counted before is not looked at."""
        if post := self._posts.get(operation):
            post.window.restart(post.window.generation)

    def _note_pause(self, post: Post, call: CallEnd) -> None:
        if call.result in STRESS:
            post.stress += 1
        if call.result is not Result.SLOW_DOWN or not call.retry_after_us:
            return
        asked_us = min(call.retry_after_us, post.operation.slow_down_max_ms * 1_000)
        is_tenants = post.operation.slow_down == "tenant" and call.tenant
        if not is_tenants:
            post.pause_us = max(post.pause_us, asked_us)
            post.lane.paused_us = max(post.lane.paused_us, self._clock.now_us() + asked_us)
        elif len(post.pauses) < PENDING_MAX:
            post.pauses[call.tenant] = max(post.pauses.get(call.tenant, 0), asked_us)
        self._emit(SlowedDown(post.lane.operation, call.tenant if is_tenants else "", asked_us / 1e6))
        self._tell_now(post)

    def _note_probe(self, post: Post, call: CallEnd, *, is_failure: bool, now_us: int) -> None:
        outcome = outcome_of(call, is_failure=is_failure)
        if call.is_probe or post.lane.circuit is CircuitState.HALF_OPEN:
            if len(post.probes) < PENDING_MAX:
                post.probes[call.id] = outcome
            self._tell_now(post)
        if post.is_alone and post.terms:
            report = Report(
                replica=self._replica, generation=0, seen=Seen(), probes=((call.id, outcome),), draw=draw()
            )
            note_probes(post.alone, post.terms, report, now_us)
            self._come_back(post)

    def _join(self, post: Post, why: str) -> None:
        """We go by what all replicas see, as before."""
        post.alone = Circuit()
        self._emit(LoneReplica(post.lane.operation, is_lone=False, detail=why))

    def _come_back(self, post: Post) -> None:
        """Probes of our own may have succeeded."""
        if post.is_alone:
            return
        self._join(post, "probes of this replica succeed")
        post.window.restart(post.window.generation)
        if post.lane.on_jobs:
            post.lane.on_jobs()

    # Telling the store.

    def _tell_now(self, post: Post) -> None:
        self._dirty[post.lane.operation] = post
        if not post.is_telling:
            post.is_telling = True
            task = asyncio.get_running_loop().create_task(self._tell(post))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def _tell_soon(self, post: Post) -> None:
        self._dirty[post.lane.operation] = post
        self._plan(REPORT_S)

    def _plan(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._tell_all)

    def _tell_all(self) -> None:
        self._timer = None
        now_us = self._clock.now_us()
        for name, post in list(self._dirty.items()):
            seen = post.window.seen(now_us)
            if post.has_news or changed(post.told, seen):
                self._tell_now(post)
            elif not seen.calls:
                del self._dirty[name]
        if self._dirty:
            # What was counted grows old, and that is news as well.
            shortest_us = min(post.window.window_us for post in self._dirty.values())
            self._plan(max(REPORT_S, shortest_us / BUCKETS / 1e6))

    async def _tell(self, post: Post) -> None:
        probes, post.probes = post.probes, {}
        pauses, post.pauses = post.pauses, {}
        pause_us, post.pause_us = post.pause_us, 0
        stress, post.stress = post.stress, 0
        seen = post.window.seen(self._clock.now_us())
        arguments: list[str | bytes | int] = [
            b"", self._replica, post.window.generation, seen.calls, seen.failed, seen.slow, seen.streak, stress,
            pause_us, draw(), b"", len(pauses), *(part for pause in pauses.items() for part in pause),
            *(part for id_, outcome in probes.items() for part in (id_, WORDS[outcome])),
        ]  # fmt: skip
        try:
            reply = await self._coalescer.run(post.lane, "report", *arguments)
        except StoreError:
            # Told by its own event; what was seen is told again.
            post.probes = probes | post.probes
            post.pauses = pauses | post.pauses
            post.pause_us, post.stress = max(pause_us, post.pause_us), stress + post.stress
            post.told = Seen()
            self._tell_soon(post)
            return
        finally:
            post.is_telling = False
        post.told = seen
        post.lane.heard_circuit(reply[3], reply[2], moved=reply[4] == 1)
        post.lane.paused_us = int(reply[8])
        if reply[5]:
            self._stand_alone(post, seen)
        if post.probes or post.pauses or post.pause_us:
            self._tell_now(post)  # it came while we told
        elif post.has_news:
            self._tell_soon(post)
        elif not seen.calls:
            self._dirty.pop(post.lane.operation, None)

    def _stand_alone(self, post: Post, seen: Seen) -> None:
        """Rule 2."""
        if post.terms is None or post.is_alone:
            return
        open_it(post.alone, post.terms, Trigger.FAILING, self._clock.now_us(), draw())
        detail = f"{seen.failed} of {seen.calls} calls failed here and {seen.slow} were slow; other replicas do not see that"
        self._emit(LoneReplica(post.lane.operation, is_lone=True, detail=detail))

    # By hand.

    async def force(
        self, operation: str, word: ByHand, until_us: int, author: str, reason: str
    ) -> tuple[CircuitState, CircuitState]:
        """
        A person opens or closes a circuit, or hands it back; that holds for all replicas at once.

        Args:
            until_us: When that ends by itself; 0: when it is handed back.

        Returns:
            The state before, and the one after: the same when there was nothing to hand back.

        Raises:
            StoreError: It is not known whether that was done.

        """
        lane = self._coalescer.lane(operation)
        reply = await self._coalescer.run(lane, "force", b"", word, until_us, author, reason)
        was, now = CIRCUIT_STATES[reply[5]], CIRCUIT_STATES[reply[2]]
        if reply[4]:
            # Told here, because only here it is known who did it and why.
            self._emit(CircuitMoved(operation, was, now, reply[3], f"{author}: {reason}"))
        lane.heard_circuit(reply[3], reply[2], moved=False)
        return was, now

    # Hearing of it.

    def heard(self, operation: str, generation: int, state: str) -> None:
        """Rule 3: another replica's step moved it. An answer of the store corrects what is told too late."""
        post = self._posts.get(operation)
        if post and generation > post.lane.generation:
            post.lane.heard_circuit(generation, CIRCUIT_STATES.index(CircuitState(state)), moved=False)

    def _on_state(self, post: Post, was: CircuitState, *, moved: bool) -> None:
        lane = post.lane
        if lane.generation != post.window.generation:
            post.before, post.began = post.began, lane.circuit
            post.why = self._why(post, lane.circuit)
            post.window.restart(lane.generation)
            post.told = Seen()
            if lane.circuit is not CircuitState.CLOSED and post.is_alone:
                self._join(post, "all replicas see it by now")
        if moved:  # the channel of all may have told us before the answer did
            self._emit(CircuitMoved(lane.operation, post.before, lane.circuit, lane.generation, post.why))
        if lane.circuit is not was:
            self._emit(CircuitSeen(lane.operation, lane.circuit))
            if lane.on_jobs:
                lane.on_jobs()

    def _why(self, post: Post, state: CircuitState) -> str:
        if state is CircuitState.OPEN:
            if post.before is CircuitState.HALF_OPEN:
                return "a probe failed"
            seen = post.window.seen(self._clock.now_us())
            return f"here {seen.failed} of {seen.calls} calls failed, {seen.slow} were slow"
        return {CircuitState.HALF_OPEN: "the pause is over", CircuitState.CLOSED: "probes succeed"}.get(
            state, ""
        )

    async def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        await end(self._telling)


def keep_probes(alone: Circuit, now_us: int) -> None:
    """Probes of our own run here, and each of them ends: there is no lease of theirs that could be lost."""
    for id_ in alone.probes:
        alone.probes[id_] = now_us + LEASE_US
