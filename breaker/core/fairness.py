"""
Fairness: whose turn is it among the jobs that wait?

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) between the lines of a band, shares
between the bands. The store runs the same rules in `store/lua/turn.lua`; `tests/model` replays
random histories through both.

1. Inside a line the earliest deadline goes first, then the older job.
2. Bands: critical first; the others share by weight. A band whose next job has waited for more
   than half of its promise counts as the next higher. Among what counts as critical the older goes first.
3. Who had nothing to start is not owed for that time: a line comes back at its band's virtual
   time, a band at that of the bands.
4. In a band the line with the lowest tag is served; its tag moves by cost / weight, the weight as
   it is now.
5. Lines of the same tag go by age, never by name: callers choose names.
6. What a line has used is remembered after it left, while others wait; when nobody is left the
   counting begins again.
7. A line that its own tenant's cap blocks is parked: it stands aside, blocks nobody, and comes back
   when the cap may have room.
8. A job that came back without having run goes to the front: its line was charged for nothing.
9. While few may start, since a downstream is being tried, the earliest deadline goes first, of the lines that stand
   first in each band.

The next job of a band decides about its age, not the oldest: the oldest may be parked for days by
its tenant's own cap, and would lift everybody else of its band over the critical ones.
"""

from dataclasses import dataclass, field

from breaker.core.waiting import PARK_MAX_US

CRITICAL, LOWEST = 0, 3
SHARES = {1: 8, 2: 4, 3: 1}
BAND_TAG = 840  # what a cost of 1 moves a band of share 1
TAG = 2_520  # what a cost of 1 moves a line of weight 1; divided by each weight up to 10 without a rest
UNPARK_MAX = 16
URGENT_LINES = 16


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """Where a line stands in its band: its tag, and its place among those of the same tag."""

    tag: int
    place: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A job in its line; microseconds of the store's clock."""

    deadline_us: int
    accepted_us: int


@dataclass(slots=True, kw_only=True)
class Lines:
    """
    The lines of one band (and of one batch key) that could start.

    Attributes:
        left: Line -> its tag when it left.
        virtual: The tag of the line that was served last; None before the first.

    """

    spots: dict[str, Spot] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    virtual: int | None = None

    @property
    def now(self) -> int:
        """The virtual time."""
        if self.virtual is not None:
            return self.virtual
        return min(self.spots.values()).tag if self.spots else 0


@dataclass(slots=True, kw_only=True)
class Turn:
    """
    All lines of one operation.

    Attributes:
        lines: (band, batch key or "") -> those that could start.
        waiting: (band, line) -> the jobs in it.
        parked: (band, line) -> when it may be tried again.
        tags: Band -> its tag; critical has none.
        virtual: The tag of the band that was served last.

    """

    lines: dict[tuple[int, str], Lines] = field(default_factory=dict)
    waiting: dict[tuple[int, str], dict[str, Entry]] = field(default_factory=dict)
    parked: dict[tuple[int, str], int] = field(default_factory=dict)
    tags: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    virtual: int = 0

    def of(self, band: int, line: str) -> Lines:
        return self.lines.setdefault((band, group_of(line)), Lines())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Whose turn it is; `counts_as` is the band that its band counts as."""

    band: int
    counts_as: int
    line: str
    id: str


def group_of(line: str) -> str:
    """The batch key in a line's name; empty when there are none."""
    return line.partition("~")[2]


def stand(
    turn: Turn, band: int, line: str, id_: str, entry: Entry, *, at_front: bool = False, until_us: int | None = None
) -> None:  # fmt: skip
    """
    A job stands in its line.

    Args:
        at_front: It came back without having run (rule 8).
        until_us: Its tenant's cap is known to be used up until then (rule 7).

    """
    turn.waiting.setdefault((band, line), {})[id_] = entry
    if (band, line) in turn.parked:
        return
    if until_us is not None and line not in turn.of(band, line).spots:
        turn.parked[band, line] = until_us
    else:
        join(turn, band, line, at_front=at_front)


def join(turn: Turn, band: int, line: str, *, at_front: bool = False) -> None:
    """Rules 3, 5, 6 and 8: a line joins those that could start."""
    lines = turn.of(band, line)
    if line in lines.spots and not at_front:
        return
    virtual = lines.now
    tag = max(virtual, lines.left.get(line, 0))
    lines.spots[line] = before(lines, virtual) if at_front else behind(lines, tag)
    if tag > virtual:
        del lines.left[line]


def behind(lines: Lines, tag: int) -> Spot:
    """Rule 5."""
    return Spot(tag, max((spot.place + 1 for spot in lines.spots.values() if spot.tag == tag), default=0))


def before(lines: Lines, tag: int) -> Spot:
    """Rule 8."""
    return Spot(tag, min((spot.place - 1 for spot in lines.spots.values() if spot.tag == tag), default=0))


def step_out(turn: Turn, band: int, line: str, tag: int) -> None:
    """Rule 6: a line without jobs, or parked, leaves."""
    lines = turn.of(band, line)
    lines.spots.pop(line, None)
    if tag > lines.now:
        lines.virtual = lines.now
        lines.left[line] = tag


def leave(turn: Turn, band: int, line: str, id_: str) -> None:
    """A job leaves its line, and not because it was its turn."""
    waiting = turn.waiting[band, line]
    del waiting[id_]
    if waiting:
        return
    del turn.waiting[band, line]
    turn.parked.pop((band, line), None)
    spot = turn.of(band, line).spots.get(line)
    if spot is not None:
        step_out(turn, band, line, spot.tag)


def pick(turn: Turn, group: str, now_us: int) -> Pick | None:
    """Rules 1 to 4: whose turn it is among the lines of a batch key (or of none)."""
    found: list[tuple[tuple[bool, int, int], Pick]] = []
    for band in range(CRITICAL, LOWEST + 1):
        lines = turn.lines.get((band, group))
        if not lines or not lines.spots:
            continue
        line = min(lines.spots, key=lines.spots.__getitem__)
        waiting = turn.waiting[band, line]
        id_ = min(waiting, key=lambda id_: (waiting[id_].deadline_us, id_))
        entry = waiting[id_]
        counts_as = class_of(band, entry, now_us)
        is_first = counts_as == CRITICAL
        rank = entry.accepted_us if is_first else max(turn.tags[band], turn.virtual)
        found.append(((not is_first, rank, band), Pick(band=band, counts_as=counts_as, line=line, id=id_)))
    return min(found, key=lambda each: each[0])[1] if found else None


def class_of(band: int, entry: Entry, now_us: int) -> int:
    """Rule 2: the band that it counts as."""
    is_aged = band > CRITICAL and 2 * now_us > entry.accepted_us + entry.deadline_us
    return band - 1 if is_aged else band


def pick_urgent(turn: Turn, group: str, now_us: int) -> Pick | None:
    """Rule 9."""
    best: Pick | None = None
    urgent = 0
    for band in range(CRITICAL, LOWEST + 1):
        lines = turn.lines.get((band, group))
        first = sorted(lines.spots, key=lines.spots.__getitem__)[:URGENT_LINES] if lines else []
        for line in first:
            waiting = turn.waiting[band, line]
            id_ = min(waiting, key=lambda id_: (waiting[id_].deadline_us, id_))
            entry = waiting[id_]
            if best is None or entry.deadline_us < urgent:
                best = Pick(band=band, counts_as=class_of(band, entry, now_us), line=line, id=id_)
                urgent = entry.deadline_us
    return best


def serve(turn: Turn, picked: Pick, cost: int, weight: int) -> None:
    """Rule 4: the job is taken out of its line, and the tags of line and band move on."""
    band, line = picked.band, picked.line
    lines, waiting = turn.of(band, line), turn.waiting[band, line]
    tag = lines.spots[line].tag
    lines.virtual = max(lines.now, tag)
    after = tag + max(1, cost * TAG // weight)
    del waiting[picked.id]
    if waiting:
        lines.spots[line] = behind(lines, after)
    else:
        del turn.waiting[band, line]
        step_out(turn, band, line, after)
    if picked.counts_as != CRITICAL:
        turn.virtual = max(turn.virtual, turn.tags[band])
        turn.tags[band] = turn.virtual + max(1, cost * BAND_TAG // SHARES[picked.counts_as])


def settle_turn(turn: Turn, served: set[tuple[int, str]]) -> None:
    """Rule 6, after a step that served these: forget what means nothing any more."""
    for key in served:
        lines = turn.lines[key]
        if lines.spots or turn.parked:
            lines.left = {line: tag for line, tag in lines.left.items() if tag > lines.now}
        else:
            turn.lines[key] = Lines()


def park(turn: Turn, band: int, line: str, until_us: int) -> None:
    """Rule 7."""
    step_out(turn, band, line, turn.of(band, line).spots[line].tag)
    turn.parked[band, line] = until_us


def unpark(turn: Turn, now_us: int) -> list[str]:
    """Rule 7; also those that are due later than any can be: the clock went back. The lines that came back."""
    parked = sorted((due, f"{band} {line}", band, line) for (band, line), due in turn.parked.items())
    due = [each for each in parked if each[0] <= now_us][:UNPARK_MAX]
    due += [each for each in parked if each[0] > now_us + PARK_MAX_US][:UNPARK_MAX]
    for _, _, band, line in due:
        del turn.parked[band, line]
        join(turn, band, line)
    return [line for _, _, _, line in due]


def try_again(turn: Turn, tenant: str, line: str, now_us: int) -> None:
    """A slot of the tenant's came back: its lines (and this one) may be tried again."""
    for band in range(CRITICAL, LOWEST + 1):
        for name in (tenant, line):
            if (band, name) in turn.parked:
                turn.parked[band, name] = now_us
