"""
Twin: the same step through the specification and through the scripts, compared.

`Twin` holds a `core.state.State` and the keys of a real server, takes each step in both with
the same `now`, and asserts that verdict and state are the same afterwards.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from breaker.core import admission, circuit, settling, waiting
from breaker.core.effective import adapt
from breaker.core.model import LEASE_US, Limits, Mode, Overflow
from breaker.core.override import Change, Wrong, adapt_anew, changed
from breaker.core.quorum import CircuitTerms
from breaker.core.rate import SERVICE_UNKNOWN_US, Bucket, in_use
from breaker.core.state import PLAYING, Ask, State
from breaker.core.terms import Override, Terms, stated
from breaker.core.verdict import Admitted, Refused, Room, TooCostly, Verdict, Waiting
from breaker.store.keys import Keys
from breaker.store.lane import CIRCUIT_STATES, POLICIES, PROBE
from breaker.store.overrides import NOTHING, WRONG
from breaker.store.parts import GRANT_HEAD, HEAD_SIZE
from breaker.store.policy import limits_of, publish_arguments, text_of
from breaker.store.scripts import load_scripts

SCRIPTS = load_scripts()
OPERATION = "billing.charge"
# Small enough that a few calls open it, and a few steps of time bring it back.
CIRCUIT = CircuitTerms(
    min_calls=3, consecutive=2, window_us=4 * 1_000_000, open_us=1_000_000, open_max_us=3 * 1_000_000, probes=2,
    ramp_us=3 * 1_000_000, slow_ppm=500_000,
)  # fmt: skip
# All that stands under these keys, in one round trip.
LOOK = """
local out = {}
for at, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then out[at] = redis.call('HGETALL', key)
  elseif kind == 'zset' then out[at] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'string' then out[at] = redis.call('GET', key)
  else out[at] = {} end
end
return out
"""


class Twin:
    def __init__(self, redis: Redis, cluster: str, terms: Terms, now_us: int) -> None:
        self.redis, self.keys = redis, Keys(cluster, OPERATION)
        self.state, self.now_us = State(), now_us
        self.seen: dict[str, Any] = {}
        self.terms = terms
        self.publish(terms)

    def run(self, verb: str, *arguments: str | int | bytes) -> list[Any]:
        script, keys = SCRIPTS[verb], self.keys.all
        try:
            reply: list[Any] = self.redis.evalsha(script.sha.decode(), len(keys), *keys, *arguments)
        except NoScriptError:
            reply = self.redis.eval(script.text, len(keys), *keys, *arguments)
        assert reply[0] == 0, reply
        return reply

    def publish(self, terms: Terms) -> None:
        self.terms = terms
        self.run("publish", *publish_arguments(terms, "test"))
        self.redis.hdel(self.keys.named("policy"), "override", "override_until", "hold", "hold_until")
        if terms.hold:
            hold: dict[Any, Any] = {"hold": terms.hold.word, "hold_until": terms.hold.until_us}
            self.redis.hset(self.keys.named("policy"), mapping=hold)
        if terms.override:
            fields: dict[Any, Any] = {
                "override": text_of(terms.override.limits),
                "override_until": terms.override.until_us,
            }
            self.redis.hset(self.keys.named("policy"), mapping=fields)

    def admit(self, ask: Ask) -> Verdict | None:
        expected = admission.admit(self.state, self.terms, ask, self.now_us, LEASE_US)
        reply = self.run(
            "admit", self.now_us, "", "", ask.replica, LEASE_US, ask.id, ask.tenant, ask.cost, ask.wait_us
        )
        assert verdict_of(reply, HEAD_SIZE) == expected, (verdict_of(reply, HEAD_SIZE), expected)
        if self.terms.overflow is Overflow.THROTTLE and self.terms.mode is Mode.ENFORCE:
            assert reply[3] == len(self.state.calls)
        self.compare()
        return expected

    def grant(self, replica: str, *, keeps_alive: bool) -> list[str]:
        if keeps_alive:
            self.state.seen[replica] = self.now_us
        granted, next_us = waiting.grant(self.state, self.terms, self.now_us, LEASE_US)
        with self.redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.psubscribe(f"{self.keys.cluster}:wake:*")
            channel.get_message(timeout=1)
            reply = self.run(
                "grant", self.now_us, "", "", replica, LEASE_US, int(keeps_alive), OPERATION,
                f"{self.keys.cluster}:wake:",
            )  # fmt: skip
            heard = [id_.decode().rstrip("*") for id_ in reply[GRANT_HEAD:]]
            owners = {id_.partition(".")[0] for id_ in granted} - {replica}
            for _ in owners:
                message = channel.get_message(timeout=5)
                assert message
                heard += [word.rstrip("*") for word in message["data"].decode().split(" ")[1:]]
        assert sorted(heard) == sorted(granted)
        assert reply[2] == len(self.state.calls)
        assert reply[3] == next_us
        self.compare()
        return granted

    def settle(self, id_: str, tenant: str, linger_us: int | None, service_us: int) -> None:
        settling.settle(self.state, id_, tenant, self.now_us, linger_us=linger_us, service_us=service_us)
        linger = "" if linger_us is None else "mean" if linger_us == -1 else str(linger_us)
        self.run("settle", self.now_us, id_, tenant, linger, service_us)
        self.compare()

    def withdraw(self, ask: Ask, *, timed_out: bool) -> Refused | bool:
        expected = settling.withdraw(self.state, self.terms, ask, self.now_us, timed_out=timed_out)
        reply = self.run(
            "withdraw", self.now_us, ask.id, ask.tenant, ask.cost, "timeout" if timed_out else "gone"
        )
        what, policy, retry_us = reply[3:6]
        found: Refused | bool = what == 1
        if what == 2:
            found = Refused(policy=POLICIES[policy], retry_after_us=retry_us)  # type: ignore[arg-type]
        assert found == expected, (found, expected)
        self.compare()
        return expected

    def renew(self, leases: Sequence[tuple[str, str]]) -> int:
        lost = settling.renew(self.state, list(leases), self.now_us, LEASE_US)
        reply = self.run("renew", self.now_us, LEASE_US, *[part for lease in leases for part in lease])
        assert reply[2] == lost
        self.compare()
        return lost

    def report(self, report: circuit.Report, pauses: dict[str, int]) -> None:
        state, now = self.state, self.now_us
        whole, _ = stated(self.terms, now)
        state_before = state.circuit
        for tenant, asked_us in pauses.items():
            bucket = state.tenants.setdefault(tenant, Bucket())
            bucket.pause_us = max(bucket.pause_us, now + asked_us)
        is_alone = circuit.on_report(state.circuit, self.terms.circuit, report, now)
        adapt(
            state.circuit, least=self.terms.adaptive_min, stated=whole.concurrency, stress=report.stress,
            in_use=in_use(state.own, now), service_us=state.service_us or SERVICE_UNKNOWN_US,
            window_us=self.terms.circuit.window_us if self.terms.circuit else 30_000_000, now_us=now,
        )  # fmt: skip
        seen = report.seen
        ends = {True: "ok", False: "failed", None: "gone"}
        reply = self.run(
            "report", now, report.replica, report.generation, seen.calls, seen.failed, seen.slow, seen.streak,
            report.stress, report.pause_us, report.draw, "", len(pauses),
            *[part for pause in pauses.items() for part in pause],
            *[part for id_, end in report.probes for part in (id_, ends[end])],
        )  # fmt: skip
        assert state_before is state.circuit
        if self.terms.circuit:
            standing = circuit.standing(state.circuit, self.terms.circuit, now)
            assert CIRCUIT_STATES[reply[2]] is standing
        assert (reply[3], reply[5] == 1) == (state.circuit.generation, is_alone)
        self.compare()

    def force(self, trigger: circuit.Trigger, until_us: int) -> None:
        words = {
            circuit.Trigger.FORCED: "forced-open", circuit.Trigger.DISABLED: "disabled",
            circuit.Trigger.RELEASED: "automatic",
        }  # fmt: skip
        moved = circuit.by_hand(self.state.circuit, trigger, self.now_us, until_us)
        reply = self.run("force", self.now_us, words[trigger], until_us, "ann", "a reason")
        assert reply[4] == moved
        self.compare()

    def set_limits(self, change: Change, until_us: int) -> Limits | Wrong:
        """A person changes the limits of the operation."""
        before, _ = stated(self.terms, self.now_us)
        after, rate = changed(before, change), change.rate
        said = (rate.limit, rate.period_us, rate.interval_us) if rate else ("", "", "")
        optional = ["" if value is None else value for value in (change.burst, change.concurrency)]
        reply = self._set(until_us, *said, *optional, change.burst_least)
        if isinstance(after, Wrong):
            assert (WRONG[reply[2]], limits_of(reply[4].decode())) == (after, before)
        else:
            assert (reply[2], limits_of(reply[4].decode())) == (0, after)
            self.terms = replace(self.terms, override=Override(limits=after, until_us=until_us))
            adapt_anew(self.state.circuit, change)
        assert limits_of(reply[3].decode()) == before
        self.compare()
        return after

    def end_limits(self) -> bool:
        """What the files say holds again; whether there was anything to end."""
        override = self.terms.override
        reply = self._set(0, "", "", "", "", "", 1)
        was_set = override is not None and override.until_us > self.now_us
        assert (int(reply[2]) != NOTHING) is was_set
        self.terms = replace(self.terms, override=None)
        assert limits_of(reply[4].decode()) == stated(self.terms, self.now_us)[0]
        self.compare()
        return was_set

    def _set(self, until_us: int, *said: str | int) -> list[Any]:
        prefix = f"{self.keys.cluster}:wake:"
        return self.run("set", self.now_us, until_us, *said, "ann", "a reason", prefix, OPERATION)

    def go_back(self, us: int) -> None:
        """The clock goes back. What has run out may or may not be there any more, so that it goes first."""
        for tenant, bucket in [("", self.state.own), *self.state.tenants.items()]:
            bucket.leases = {id_: expiry for id_, expiry in bucket.leases.items() if expiry > self.now_us}
            self.redis.zremrangebyscore(
                self.keys.named(f"slots:{tenant}" if tenant else "slots"), "-inf", self.now_us
            )
        self.now_us -= us

    def compare(self) -> None:
        """Everything that can still matter is the same in both."""
        self.look()
        state, now = self.state, self.now_us
        rate = self._hash("rate")
        assert max(now, int(rate.get("tat", 0))) == max(now, state.own.tat_us)
        assert max(now, int(rate.get("promise", 0))) == max(now, state.own.promise_us)
        assert max(now, int(rate.get("slots_promise", 0))) == max(now, state.own.slots_promise_us)
        assert max(now, int(rate.get("opening_promise", 0))) == max(now, state.own.opening_promise_us)
        assert int(rate.get("service", 0)) == state.service_us
        assert int(rate.get("started", 0)) == state.started
        assert int(rate.get("wanted", 0)) == state.wanted
        assert self._alive("slots") == {k: v for k, v in state.own.leases.items() if v > now}
        assert self._zset("waiting") == state.waiting
        assert set(self._hash("calls")) == set(state.calls)
        assert self._zset("parked") == state.parked
        assert self._alive("tombs") == {k: v for k, v in state.tombs.items() if v > now}
        self.compare_circuit()
        for tenant, bucket in state.tenants.items():
            own = self._hash(f"rate:{tenant}")
            assert max(now, int(own.get("tat", 0))) == max(now, bucket.tat_us)
            assert max(now, int(own.get("promise", 0))) == max(now, bucket.promise_us)
            assert max(now, int(own.get("pause", 0))) == max(now, bucket.pause_us)
            assert self._alive(f"slots:{tenant}") == {k: v for k, v in bucket.leases.items() if v > now}
        for tenant, line in state.lines.items():
            assert self._zset(f"parked:{tenant}") == line

    def compare_circuit(self) -> None:
        known, seen, now = self.state.circuit, self._hash("circuit"), self.now_us
        assert seen.get("state", "closed") == known.state
        numbers = {
            "gen": known.generation, "since": known.since_us, "until": known.until_us, "opens": known.opens,
            "passed": known.passed, "closed_at": known.closed_us, "held": known.held_us,
            "adaptive": known.adaptive, "adapted": known.adapted_us, "peak": known.peak,
        }  # fmt: skip
        assert {name: int(seen.get(name, 0)) for name in numbers} == numbers
        assert max(now, int(seen.get("pause", 0))) == max(now, known.pause_us)
        assert seen.get("holds", "") == " ".join(f"{start} {end}" for start, end in known.holds)
        assert self._alive("circuit:p") == {id_: at for id_, at in known.probes.items() if at > now}
        windows = {
            name: tuple(int(word) for word in text.split(" "))
            for name, text in self._hash("circuit:w").items()
        }
        assert windows == {
            name: (at.at_us, at.calls, at.failed, at.slow, at.streak) for name, at in known.windows.items()
        }

    def deadlines(self) -> list[int]:
        """Moments at which something changes: where mistakes live."""
        state = self.state
        moments = [*state.own.leases.values(), state.own.tat_us, state.own.promise_us, *state.parked.values()]
        moments += [waiter.give_up_us for waiter in state.calls.values()]
        moments += [start for start, _ in self.terms.calendar] + [end for _, end in self.terms.periods]
        moments += [bucket.tat_us for bucket in state.tenants.values()]
        moments += [state.circuit.until_us, state.circuit.pause_us, *state.circuit.probes.values()]
        moments += [self.terms.hold.until_us] if self.terms.hold else []
        return sorted({moment for moment in moments if self.now_us <= moment < PLAYING})

    def look(self) -> None:
        """Read all that `compare` asks for."""
        names = self.names()
        found = self.redis.eval(LOOK, len(names), *(self.keys.named(name) for name in names))
        self.seen = dict(zip(names, found, strict=True))

    def names(self) -> list[str]:
        """The keys that the specification knows something about."""
        names = ["rate", "slots", "waiting", "calls", "parked", "tombs", "circuit", "circuit:p", "circuit:w"]
        for tenant in self.state.tenants:
            names += [f"rate:{tenant}", f"slots:{tenant}"]
        return names + [f"parked:{tenant}" for tenant in self.state.lines]

    def _hash(self, name: str) -> dict[str, str]:
        found = iter(self.seen[name])
        return {key.decode(): value.decode() for key, value in zip(found, found, strict=True)}

    def _zset(self, name: str) -> dict[str, int]:
        found = iter(self.seen[name])
        return {member.decode(): int(score) for member, score in zip(found, found, strict=True)}

    def _alive(self, name: str) -> dict[str, int]:
        return {member: score for member, score in self._zset(name).items() if score > self.now_us}


def verdict_of(reply: list[Any], at: int) -> Verdict | None:
    """One call's answer in a reply of admit.lua."""
    verdict, policy, retry_us, room_policy, remaining, reset_us, holds = reply[at : at + 7]
    room = Room(policy=POLICIES[room_policy], remaining=remaining, reset_us=reset_us)
    why: Any = POLICIES[policy]
    leased, is_probe = holds > 0, holds == PROBE
    answers: dict[int, Verdict | None] = {
        1: Admitted(room=room, leased=leased, shadow=why, is_probe=is_probe),
        2: Admitted(room=room, leased=leased, over=why, is_probe=is_probe),
        3: Admitted(room=room, shadow=why),
        4: Waiting(policy=why, room=room),
        5: Refused(policy=why, retry_after_us=retry_us, room=room),
        6: TooCostly(policy=why),
        7: None,
    }
    return answers[verdict]
