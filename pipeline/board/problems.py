"""Why the board must not be trusted just now, loudest first: dead data that looks fine is its worst fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.board.silences import Routing
from pipeline.board.text import PROSE, at_time, short
from pipeline.ledger import status as written
from pipeline.serve.status_report import MAKE_TOPICS, QUIET_AFTER
from pipeline.serve.terminal import duration

BEHIND = 300.0
"""Seconds that event time may lag behind the clock before what is shown is no longer called now."""
STANDS_STILL = 60.0
"""Seconds without any progress of evaluation, which otherwise goes on at the clock's pace even when nothing comes."""
UNPUBLISHED = 60.0
"""Seconds since the last publishing, which comes every ten."""
AS_OF_THEN = "What is below is as of then, not now."


@dataclass(frozen=True, slots=True)
class Problem:
    """`bad`: what is below may be dead; `warn`: something is amiss, and what is below holds."""

    level: Literal["bad", "warn"]
    title: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of the pipeline: its last status, the process that holds the data directory, when it last
    published; `reading`: why the history could not be read, if so; `still`: seconds since evaluation last moved."""

    status: Mapping[str, Any] | None
    pid: int | None
    published_at: datetime | None = None
    reading: str = ""
    still: float = 0.0


def problems(life: Life, routing: Routing, now: float) -> tuple[Problem, ...]:
    """All of them, the bad ones first; `now` in epoch seconds."""
    found = [*_life(life, now), *_reading(life, now), *_notes(life), *_delivery(life, routing)]
    return tuple(sorted(found, key=lambda one: one.level))


def _life(life: Life, now: float) -> Iterator[Problem]:
    if life.status is None:
        if life.pid is None:
            yield Problem("bad", "No data: no pipeline has ever run here")
        else:
            yield Problem("bad", "No data yet: the pipeline is starting")
        return
    age = written.age(life.status, now)
    since = at_time(now - age)
    told = f"Its last word is {duration(round(age))} old. {AS_OF_THEN}"
    if life.pid is None:
        state = life.status["state"]
        if state == "failed":
            said = short(life.status.get("error"), PROSE)
            yield Problem(
                "bad", f"The pipeline has failed, at {since}: {short(said)}", f"It said: {said}. {told}"
            )
        elif state == "stopped":
            yield Problem("bad", f"The pipeline has been stopped since {since}, in good order", told)
        else:
            yield Problem("bad", f"The pipeline has been dead since {since}: it ended without a word", told)
    elif age > QUIET_AFTER:
        why = "it runs, and hangs or is suspended"
        yield Problem("bad", f"The pipeline has said nothing since {since}: {why}", told)


def _reading(life: Life, now: float) -> Iterator[Problem]:
    if life.reading:
        yield Problem("bad", "The published history cannot be read", short(life.reading, PROSE))
    if life.status is None or life.pid is None:
        return
    if life.published_at is not None:
        age = now - life.published_at.replace(tzinfo=UTC).timestamp()
        if age > UNPUBLISHED:
            yield Problem(
                "bad",
                f"Nothing has been published since {at_time(now - age)}",
                f"Alerts and standing are {duration(round(age))} old. {AS_OF_THEN}",
            )
    elif written.least_watermark(life.status) is not None:
        yield Problem(
            "warn",
            "Nothing is published yet",
            "What is below is empty: the first publishing is still to come.",
        )
    yield from _progress(life, now)


def _progress(life: Life, now: float) -> Iterator[Problem]:
    """A backlog that is worked off, or the replay of an old day, is behind the clock and sound."""
    mark = written.least_watermark(life.status or {})
    if mark is None:
        yield Problem("bad", "No data yet: nothing has been evaluated")
    elif life.still > STANDS_STILL:
        yield Problem(
            "bad",
            f"Evaluation has stood still since {at_time(now - life.still)}",
            f"It has come to {at_time(mark)}. {AS_OF_THEN}",
        )
    elif now - mark > BEHIND:
        yield Problem(
            "warn",
            f"What is below is {duration(round(now - mark))} behind the clock",
            f"Events are evaluated up to {at_time(mark)}, and it goes on: a backlog, or the replay of an old day.",
        )


def _notes(life: Life) -> Iterator[Problem]:
    if life.status is None:
        return
    if stalled := life.status.get("stalled"):
        yield Problem("bad", short(f"T{stalled[1:]}", PROSE), AS_OF_THEN)
    for words in life.status.get("clocks", ()):
        yield Problem("bad", "A clock is wrong", short(words, PROSE))
    for words in life.status.get("unmatched", ()):
        yield Problem("warn", "A clause matches nothing that was ever seen", short(f"C{words[1:]}", PROSE))
    for topic in life.status.get("absent_topics", ()):
        yield Problem(
            "warn", f"The topic {short(topic)} is missing", f"{MAKE_TOPICS[:1].upper()}{MAKE_TOPICS[1:]}."
        )
    if life.status["contract_error"]:
        said = short(life.status["contract_error"], PROSE)
        yield Problem("warn", "A new contract is refused, the old one goes on", said)
    if not life.status["contracts"]:
        yield Problem("warn", "No contract: only the telemetry itself is watched")


def _delivery(life: Life, routing: Routing) -> Iterator[Problem]:
    for row in (life.status or {}).get("undelivered", ()):
        if row["last_error"] or row["refused"]:
            why = short(row["last_error"] or "", PROSE)
            what = f"{row['count']:,} alert change{'' if row['count'] == 1 else 's'}"
            yield Problem("warn", f"{what} could not be delivered to {short(row['destination'])}", why)
    if routing.error:
        yield Problem(
            "warn",
            "Alertmanager does not answer: silences are unknown",
            f"{routing.address}: {routing.error}. Every open alert is below.",
        )
