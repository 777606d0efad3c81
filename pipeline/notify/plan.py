"""Which changes go to a destination next, and which never will: decided without a clock and without I/O.

- Order per identity is kept: a batch holds each identity once, and its next change is in a later batch.
- A destination that keeps states is given only the newest change of an identity (which also ends what the
  older ones began); a log is given every change.
- Nobody is paged for what is over: of the changes older than `page_max_age` only the newest is for a
  paging destination, and not even that one if it resolves what the destination was never told.  A resolve of
  what it *was* told always goes, however old: it calls nobody, and withholding it would leave a receiver
  believing in an outage for ever.
- A source that fell silent while the broker was away lost its connection, and maybe its events: its alert is held for
  `hold`, and told only if the source is silent still.  One outage is one page, PipelineStalled.
- While the pipeline catches up after a downtime, an old firing change is held until it is known whether it
  still fires, but never longer than `hold`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.notify.destination import Habits
from pipeline.notify.message import fold
from pipeline.notify.outbox import OutboxRow
from pipeline.rules.alert_message import AlertMessage, UnreadableChange, from_json
from pipeline.rules.telemetry import TelemetrySilent

SILENCE = TelemetrySilent.alertname
COME_BACK_WITHIN = 45.0
"""Seconds after an outage in which sources come back: clients wait up to 10 s between two attempts, and report every 30."""


@dataclass(frozen=True)
class Step:
    """One change to send; its acceptance settles `rows`, of which the last is its own."""

    change: AlertMessage
    rows: tuple[OutboxRow, ...]


@dataclass(frozen=True)
class DeliveryPlan:
    """`batches` in the order to send them, rows `withheld` with the reason, and how many rows are `held`."""

    batches: tuple[tuple[Step, ...], ...]
    withheld: tuple[tuple[OutboxRow, str], ...]
    unreadable: tuple[tuple[OutboxRow, str], ...]
    held: int


@dataclass(frozen=True)
class Moment:
    """When a plan is made: wall clock, and what the ages of changes are measured with (seconds).

    `page_max_age` None means that no change is too old, which is for replays of recorded time.  `outage`: when the broker
    was away last, and when it answered again.
    """

    now: float
    page_max_age: float | None
    catching_up: bool = False
    hold: float = 120.0
    outage: tuple[float, float] | None = None

    def is_old(self, change: AlertMessage) -> bool:
        late = self.page_max_age is not None and self.now - change.happened_at > self.page_max_age
        return late or self.is_of_outage(change)

    def is_of_outage(self, change: AlertMessage) -> bool:
        if self.outage is None or change.alertname != SILENCE:
            return False
        return self.outage[0] <= change.happened_at <= self.outage[1] + COME_BACK_WITHIN

    def holds(self, change: AlertMessage) -> bool:
        waits = self.catching_up or self.is_of_outage(change)
        return waits and self.now - change.changed_at < self.hold and change.firing and self.is_old(change)


def _read(rows: Iterable[OutboxRow]) -> tuple[list[Step], list[tuple[OutboxRow, str]]]:
    steps: list[Step] = []
    unreadable: list[tuple[OutboxRow, str]] = []
    for row in rows:
        try:
            steps.append(Step(from_json(row.body), (row,)))
        except UnreadableChange as fault:
            unreadable.append((row, str(fault)))
    return steps, unreadable


def identities(rows: Iterable[OutboxRow]) -> frozenset[str]:
    """The identities that the rows tell of; unreadable rows tell of none."""
    return frozenset(step.change.identity for step in _read(rows)[0])


def _folded(steps: Sequence[Step]) -> Step:
    return Step(fold([step.change for step in steps]), tuple(row for step in steps for row in step.rows))


def _untold(backlog: Sequence[Step]) -> bool:
    """Whether the destination cannot know of this alert: it begins here, and none of it was ever tried."""
    return backlog[0].change.begins and not any(step.rows[0].attempts for step in backlog)


def steps_of(
    backlog: Sequence[Step], habits: Habits, moment: Moment
) -> tuple[list[Step], tuple[OutboxRow, ...]]:
    """The steps for one identity's undelivered changes (oldest first), and the rows that are withheld."""
    if not habits.pages:
        return list(backlog), ()
    old = next((i for i, step in enumerate(backlog) if not moment.is_old(step.change)), len(backlog))
    # What is old is folded into the first change that is not, or into one.
    several = len(backlog) if habits.keeps_state else min(old + 1, len(backlog))
    head, rest = _folded(backlog[:several]), list(backlog[several:])
    if old and not head.change.firing and _untold(backlog[:several]):
        return rest, head.rows
    return [head, *rest], ()


def _group(change: AlertMessage, habits: Habits) -> tuple[str, ...]:
    return (change.alertname, change.labels.get("contract", "")) if habits.grouped else ()


def _batches(steps: Iterable[Step], habits: Habits, limit: int) -> tuple[tuple[Step, ...], ...]:
    """Cut into batches of at most `limit`, in order; an identity's second change closes its batch."""
    batches: list[list[Step]] = []
    open_batch: dict[tuple[str, ...], tuple[list[Step], set[str]]] = {}
    for step in steps:
        group = _group(step.change, habits)
        batch, identities = open_batch.get(group, ([], set()))
        if not batch or step.change.identity in identities or len(batch) >= limit:
            batch, identities = open_batch[group] = ([], set())
            batches.append(batch)
        batch.append(step)
        identities.add(step.change.identity)
    return tuple(map(tuple, batches))


def plan(
    rows: Sequence[OutboxRow],
    habits: Habits,
    moment: Moment,
    limit: int,
    rank: Callable[[str], int] = lambda _: 0,
) -> DeliveryPlan:
    """The plan for one destination's undelivered rows, by `seq`.

    `limit` is how many changes a batch may hold now; identities with a lower `rank` go first, so that one
    change that a destination chokes on does not stand before the others for ever.
    """
    read, unreadable = _read(rows)
    backlogs: dict[str, list[Step]] = {}
    withheld: list[tuple[OutboxRow, str]] = []
    for step in read:
        if step.change.refreshes and not habits.refreshed:
            withheld.append((step.rows[0], "not told: it fires on, with other annotations"))
        else:
            backlogs.setdefault(step.change.identity, []).append(step)
    ready: list[Step] = []
    held = 0
    for backlog in backlogs.values():
        steps, silent = steps_of(backlog, habits, moment)
        withheld += [(row, _why_withheld(moment)) for row in silent]
        if habits.pages and steps and moment.holds(steps[0].change):
            held += sum(len(step.rows) for step in steps)
        else:
            ready += steps
    ready.sort(key=lambda step: (rank(step.change.identity), step.rows[-1].seq))
    return DeliveryPlan(_batches(ready, habits, limit), tuple(withheld), tuple(unreadable), held)


def _why_withheld(moment: Moment) -> str:
    of_outage = " or of a time in which the broker was away" if moment.outage else ""
    return (
        f"not paged: over before it could be told, and older than {moment.page_max_age or 0:g} s{of_outage}"
    )
