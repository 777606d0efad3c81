"""Before the first publishing the door says so, in place of an empty answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.catalog import load
from pipeline.clauses import plan_of
from pipeline.door import engine
from pipeline.errors import QueryError
from pipeline.history import publish
from pipeline.ledger.store import Ledger


def test_a_question_before_the_first_publishing_is_told_that_there_is_nothing_yet(tmp_path: Path) -> None:
    catalog, home = load(), tmp_path / "home"
    home.mkdir()
    ledger = Ledger(tmp_path / "data", catalog)
    ledger.use((), plan_of((), catalog), 0.0)
    made = engine.Engine(ledger.data, catalog, home, memory_limit="100MB", temp_limit="100MB", threads=1)
    try:
        with pytest.raises(QueryError, match="nothing is published yet"):
            made.question().begin("SELECT count(*) FROM standing")
        one = made.question()
        one.begin("SELECT 1")
        assert one.more() == [(1,)]
        publish.publish(ledger.cursor(), ledger.data, catalog)
        two = made.question()
        two.begin("SELECT count(*) FROM standing")
        assert two.more() == [(0,)]
    finally:
        made.close()
        ledger.close()
