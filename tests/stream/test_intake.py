"""The one way in: a watermark that passes a month is evaluated in steps, and a stop is heard between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.catalog import Catalog
from pipeline.clauses import load as load_contract
from pipeline.clauses import plan_of
from pipeline.ledger.evaluation import AT_ONCE
from pipeline.ledger.store import Applied
from pipeline.stream.intake import Intake

EXAMPLE = Path(__file__).parents[2] / "schemas" / "example-contract.yaml"
DAYS = 3


class Moved:
    """Watermarks that stand `DAYS` after the first event."""

    def __init__(self, mark: float) -> None:
        self.mark = mark

    def current(self, now: float, clock: float) -> dict[str, float]:
        return {"telemetry.gpu": self.mark}


@pytest.fixture
def backlog(pipeline: Any, make: Any, catalog: Catalog) -> Iterator[Any]:
    """A ledger with an event every half hour, of which no instant is evaluated."""
    pipeline.ledger.use([], plan_of([load_contract(EXAMPLE)], catalog), 0.0)
    pipeline.ledger.plan = None
    events = [make.event(at=make.T0 + n * 1800, id=str(n)) for n in range(DAYS * 48)]
    pipeline.take(*events, watermarks={"telemetry.gpu": make.T0 - 60})
    pipeline.ledger.plan = plan_of([load_contract(EXAMPLE)], catalog)
    yield pipeline


def _reached(pipeline: Any) -> int:
    ((found,),) = pipeline.sql(
        "SELECT min(epoch(instant))::BIGINT FROM evaluated WHERE \"group\" = 'telemetry.gpu'"
    )
    return int(found)


def test_a_stop_is_heard_between_two_steps_and_the_next_start_goes_on_there(backlog: Any, make: Any) -> None:
    end = make.T0 + DAYS * 86_400
    steps: list[Applied] = []

    async def advance(stop_after: int) -> None:
        def told(applied: Applied) -> None:
            steps.append(applied)
            if len(steps) == stop_after:
                stopping.append(asyncio.ensure_future(intake.stop()))

        stopping: list[asyncio.Future[None]] = []
        nothing = cast(Any, SimpleNamespace())
        intake = Intake(backlog.ledger, backlog.processor, cast(Any, Moved(float(end))), nothing, told)
        await intake.tick()
        await asyncio.gather(*stopping)
        await intake.stop()

    asyncio.run(advance(stop_after=2))
    halfway = _reached(backlog)
    assert len(steps) in (2, 3) and halfway < end - 86_400, "it did not go on to the end"
    assert backlog.ledger.behind
    asyncio.run(advance(stop_after=-1))
    assert _reached(backlog) == end // 10 * 10 and not backlog.ledger.behind
    spans = [t1 - t0 for applied in steps for t0, t1 in applied.due.values()]
    assert max(spans) <= AT_ONCE * 10, "an hour at a time at most"
