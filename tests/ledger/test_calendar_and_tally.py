"""Two kinds of rule that the product's own clauses are not: one reads no topic, one looks back on its own verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from pipeline.catalog import Catalog
from pipeline.clauses import KINDS, load
from pipeline.contract.model import Clause, Contract
from pipeline.ledger import evaluation
from pipeline.ledger.store import Ledger
from pipeline.readings import EntityCount, match_of
from pipeline.rules.evaluate import plan_of
from pipeline.rules.evidence import Evidence
from pipeline.rules.kind import Kind
from pipeline.rules.rule import ClauseRule
from pipeline.rules.tally import VerdictTally
from pipeline.rules.verdicts import Answers, Verdict

DAY, HOUR = 86_400, 3600
T = 1_790_000_000 // DAY * DAY
GPU, QUEUE = "telemetry.gpu", "telemetry.queue"
FRAME = {
    "metadata": {"id": "acme", "version": "1"},
    "parties": {"customer": "C", "supplier": "S"},
    "term": {"start": "2024-01-01", "end": "2030-01-01"},
    "currency": "USD",
    "timezone": "UTC",
    "capacity": [{"id": "floor", "committed_gpus": 1}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineClause(Clause):
    """Something is to be done by `on_t`; it is told `lead_seconds` ahead."""

    kind: ClassVar[str] = "deadline"

    on_t: int
    lead_seconds: int


class ContractDeadline(ClauseRule[DeadlineClause]):
    """Breach: the day is near.  It follows from the calendar alone."""

    alertname = "ContractDeadline"
    says = "due in {observed} {unit}"
    unit = "days"

    def prepare(self) -> None:
        self.span = DAY

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        clause = self.clause_of_contract
        left = clause.on_t - t
        if left < 0:
            return None
        terms = self.terms(t, clause.lead_seconds / DAY, None)
        state = "breach" if left <= clause.lead_seconds else "ok"
        return [Verdict(terms, (), t, state, left / DAY)]

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        days = f"make_timestamp({self.clause_of_contract.on_t}::BIGINT * 1000000) - make_timestamp({verdict.t}::BIGINT * 1000000)"
        return f"SELECT epoch({days}) / {DAY} AS value"


DEADLINE = Kind(path="deadlines", clause=DeadlineClause, of=(), alerts=(ContractDeadline,))


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetClause(Clause):
    """Fewer than `gpus` for at most `allowed_seconds` of the last `over_seconds`."""

    kind: ClassVar[str] = "budget"

    gpus: int
    allowed_seconds: int
    over_seconds: int


class BudgetSpent(ClauseRule[BudgetClause]):
    """Breach: more time was bad than is allowed; each instant is good or bad by how many GPUs there are."""

    alertname = "BudgetSpent"
    says = "{observed} {unit} out of bounds, at most {bound} allowed"
    unit = "min"

    def prepare(self) -> None:
        gpu, clause = self.catalog.by_view("gpu"), self.clause_of_contract
        self.keeps, self.span, self.topics = clause.over_seconds, 90, (gpu.topic,)
        self.specs = (EntityCount(gpu.topic, match_of(clause.match), clause.by, self.span),)

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        terms = self.terms(t, self.clause_of_contract.allowed_seconds / 60, None)
        return [
            Verdict(
                terms, row.by, t, "ok" if (row.value or 0) >= self.clause_of_contract.gpus else "breach", None
            )
            for row in answers[self.specs[0]].at(t)
        ]

    def weighed(self, verdict: Verdict, tally: VerdictTally) -> Verdict:
        counts = tally.over(verdict.t - self.keeps, verdict.t)
        spent = counts.bad > self.clause_of_contract.allowed_seconds
        facts = {"good": counts.good, "bad": counts.bad, "unknown": counts.unknown}
        return verdict._replace(
            state="breach" if spent else "ok", observed=counts.bad / 60, samples=1, details=facts
        )


BUDGET = Kind(path="budgets", clause=BudgetClause, of=("gpu",), alerts=(BudgetSpent,))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    path = tmp_path_factory.mktemp("contract") / "acme.json"
    path.write_text(json.dumps(FRAME))
    return load(path)


@pytest.fixture
def ledgers(tmp_path: Path, make_ledger: Any, catalog: Catalog, frame: Contract) -> Iterator[Any]:
    """`ledgers(clause)`: a new ledger in which this is the only clause; `again(one)`: after a restart."""
    made = []

    def use(ledger: Ledger, clause: Clause) -> None:
        contract = replace(frame, clauses=(clause,))
        ledger.use([contract], plan_of([contract], catalog, (*KINDS, DEADLINE, BUDGET)), 0.0)

    def one(clause: Clause) -> Any:
        small = make_ledger(tmp_path / f"data-{len(made)}", catalog)
        made.append(small)
        use(small.ledger, clause)
        return small

    def again(small: Any, clause: Clause) -> Any:
        small.close()
        made.remove(small)
        fresh = make_ledger(small.data, catalog)
        made.append(fresh)
        use(fresh.ledger, clause)
        return fresh

    one.again = again  # type: ignore[attr-defined]
    yield one
    for small in made:
        small.close()


def naive(t: float) -> datetime:
    return datetime.fromtimestamp(t, UTC).replace(tzinfo=None)


def changes(small: Any) -> list[Any]:
    return list(
        small.con.execute(
            "SELECT \"time\", alertname, state, observed FROM alerts WHERE contract = 'acme' ORDER BY ALL"
        ).fetchall()
    )


# ------------------------------------------------------------------------------------------------- the calendar


def renewal(**more: Any) -> DeadlineClause:
    return DeadlineClause(id="renewal", on_t=T + 2 * DAY, lead_seconds=DAY, text="Give notice.", **more)


def test_a_deadline_reads_no_topic_and_is_judged_on_the_newest_frontier(ledgers: Any, rows: Any) -> None:
    small = ledgers(renewal())
    small.add("gpu", [rows.gpu(T + DAY - 60)])
    small.ledger.tick({QUEUE: naive(T + DAY - 120)}, 0)
    assert changes(small) == []
    # Only the GPUs' topic goes on: the other holds nobody back.
    small.ledger.tick({GPU: naive(T + DAY + 30), QUEUE: naive(T + DAY - 120)}, 0)
    assert changes(small) == [(naive(T + DAY), "ContractDeadline", "firing", 1.0)]
    [standing] = small.con.execute(
        "SELECT alertname, state, observed, unit FROM standing WHERE contract = 'acme'"
    ).fetchall()
    assert standing == ("ContractDeadline", "breach", pytest.approx(1.0, abs=0.01), "days")


def test_its_alert_has_its_words_and_sql_that_gives_its_number(ledgers: Any, rows: Any) -> None:
    small = ledgers(renewal())
    small.add("gpu", [rows.gpu(T + DAY - 60)])
    small.watermark(T + DAY)
    [told] = small.con.execute("SELECT annotations FROM alerts WHERE contract = 'acme'").fetchall()
    notes = json.loads(told[0])
    assert notes["summary"] == "renewal: due in 1 days (everything the clause covers)"
    assert notes["text"] == "Give notice."
    assert duckdb.connect().execute(notes["sql"]).fetchone() == (1.0,)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_in_pieces_and_at_once_it_tells_the_same(ledgers: Any, rows: Any, cut: int) -> None:
    at_once, pieces = ledgers(renewal(for_seconds=60)), ledgers(renewal(for_seconds=60))
    for small in (at_once, pieces):
        small.add("gpu", [rows.gpu(T + DAY - 600)])
    for t in range(T + DAY - 600, T + DAY + 600, 10 * cut):
        pieces.watermark(t)
    for small in (at_once, pieces):
        small.watermark(T + DAY + 600)
    told = [("ContractDeadline", "pending", 1.0), ("ContractDeadline", "firing", pytest.approx(1 - 60 / DAY))]
    assert [change[1:] for change in changes(at_once)] == told
    assert changes(pieces) == changes(at_once)


def test_where_nothing_is_heard_for_days_the_first_instant_of_its_day_tells_it(
    ledgers: Any, rows: Any
) -> None:
    small = ledgers(replace(renewal(), on_t=T + 30 * DAY + 5 * HOUR))
    small.add("gpu", [rows.gpu(T)])
    small.watermark(T + 40 * DAY)
    while small.ledger.behind:
        small.watermark(T + 40 * DAY)
    fired = [change[0] for change in changes(small) if change[2] == "firing"]
    assert fired == [naive(T + 30 * DAY)]


# --------------------------------------------------------------------------------------------------- the tally


BUDGETED = BudgetClause(id="budget", gpus=1, allowed_seconds=300, over_seconds=HOUR, by=("cluster",))


def feed(small: Any, rows: Any, first: int, last: int) -> None:
    """One GPU of c0 that is healthy but for minutes 6 to 8 and 14 to 18, in the minutes `[first, last)`."""
    for minute in range(first, last):
        failed = 6 <= minute < 8 or 14 <= minute < 18
        reports = [T + 60 * minute, T + 60 * minute + 30]
        small.add("gpu", [rows.gpu(at, health="failed" if failed else "ok") for at in reports])
        small.watermark(T + 60 * minute + 59)


def tallies(small: Any) -> list[Any]:
    return list(small.con.execute("SELECT * EXCLUDE contract FROM tallies ORDER BY starts").fetchall())


def test_a_rule_counts_its_own_verdicts_and_a_restart_forgets_none(ledgers: Any, rows: Any) -> None:
    straight, restarted = ledgers(BUDGETED), ledgers(BUDGETED)
    feed(straight, rows, 0, 24)
    for first in range(0, 24, 8):
        feed(restarted, rows, first, first + 8)
        restarted = ledgers.again(restarted, BUDGETED)
    assert tallies(restarted) == tallies(straight)
    assert changes(restarted) == changes(straight)
    assert [state for *_, state in tallies(straight)] == ["ok", "breach", "ok", "breach", "ok"]
    [fired] = [change for change in changes(straight) if change[2] == "firing"]
    assert fired[3] * 60 == 310  # the first instant at which more than five minutes of the hour were bad


def test_what_a_tally_says_stands_beside_the_reading(ledgers: Any, rows: Any) -> None:
    small = ledgers(BUDGETED)
    feed(small, rows, 0, 9)
    [row] = small.con.execute("SELECT facts, observed FROM standing WHERE clause = 'budget'").fetchall()
    facts = json.loads(row[0])
    assert facts["bad"] == row[1] * 60 and facts["good"] + facts["bad"] + facts["unknown"] == HOUR
    counted = small.con.execute(
        "SELECT sum(epoch(ends) - epoch(starts)) FILTER (state = 'breach') FROM tallies"
    ).fetchone()
    assert counted == (facts["bad"],)


def test_a_tally_is_saved_in_the_transaction_that_evaluates(
    ledgers: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ledgers(BUDGETED)
    feed(small, rows, 0, 7)
    before, told = tallies(small), changes(small)

    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(evaluation, "write_changes", fail)
        with pytest.raises(RuntimeError, match="disk"):
            small.watermark(T + 7 * 60 + 120)
    assert (tallies(small), changes(small)) == (before, told)
    small.watermark(T + 7 * 60 + 120)
    assert tallies(small)[-1][-2] > before[-1][-2]
