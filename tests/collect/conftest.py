"""Bills as files, and what the real pipeline makes of the events that an import of them sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog, load
from pipeline.collect.bill_import import Bill, BillOptions
from pipeline.history import publish, query, seal
from pipeline.ledger.store import Ledger
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor

INPUT = Path(__file__).parent / "input"
HEADERS = (("content-type", b"application/cloudevents+json"),)
NOW = datetime(2026, 12, 6, 12, tzinfo=UTC)
COLUMNS = (
    "ProviderName",
    "ChargeCategory",
    "BillingCurrency",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "BilledCost",
)
GOOD = {
    "ProviderName": "Halcyon", "ChargeCategory": "Usage", "BillingCurrency": "USD", "ChargePeriodStart": "2026-11-01T00:00:00Z",
    "ChargePeriodEnd": "2026-11-02T00:00:00Z", "BilledCost": "1.50",
}  # fmt: skip

Message = tuple[str, bytes, bytes, int]


def csv_of(*rows: dict[str, str], more: Sequence[str] = ()) -> str:
    """CSV of these rows, each a good charge but for what it says."""
    names = (*COLUMNS, *more)
    lines = [",".join(names)]
    for row in rows:
        lines.append(",".join(quoted({**GOOD, **row}.get(name, "")) for name in names))
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


class Taker:
    """A real ledger that takes in the messages of imports."""

    def __init__(self, data: Path, catalog: Catalog) -> None:
        self.data, self.catalog = data, catalog
        self.ledger = Ledger(data, catalog)
        self.processor = Processor(self.ledger.con, catalog, data, 2**20)

    def take(self, messages: Sequence[Message]) -> None:
        """One batch of these messages, appended now."""
        at = self.ledger.offsets()
        places: dict[tuple[str, int], list[ConsumerRecord]] = {}
        for topic, key, value, _ in messages:
            own = places.setdefault((topic, 0), [])
            offset, stamp = at.get((topic, 0), 0) + len(own), int(NOW.timestamp() * 1000)
            own.append(ConsumerRecord(topic, 0, offset, stamp, 1, key, value, None, -1, len(value), HEADERS))  # type: ignore[arg-type]
        ranges = {place: (at.get(place, 0), at.get(place, 0) + len(own)) for place, own in places.items()}
        decoded = self.processor.decode(Batch(places, ranges))
        assert not decoded.letters, decoded.letters
        delta = self.processor.take(decoded, self.ledger.known_from(), self.ledger.progress())
        self.ledger.apply(delta, {}, NOW.timestamp())

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        seal.seal(self.ledger.cursor(), self.data, self.catalog)
        publish.publish(self.ledger.cursor(), self.data, self.catalog)
        return list(query.ask(query.open_views(self.data, self.catalog), sql).rows)

    def fates(self) -> dict[str, int]:
        rows = self.ledger.con.execute(
            "SELECT fate || ' ' || reason, sum(n)::INTEGER FROM fates GROUP BY 1"
        ).fetchall()
        return {fate.strip(): n for fate, n in rows}


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load()


@pytest.fixture
def taker(tmp_path: Path, catalog: Catalog) -> Iterator[Taker]:
    one = Taker(tmp_path / "data", catalog)
    yield one
    one.ledger.close()


@pytest.fixture
def read(catalog: Catalog, tmp_path: Path) -> Callable[..., Any]:
    """`read(path or text…, **options)`: the report of a bill, and its messages; a text becomes a file of its own."""

    def read(*sources: Path | str, sent: datetime = NOW, **options: Any) -> tuple[Any, list[Message]]:
        named = []
        for number, source in enumerate(sources):
            path = source if isinstance(source, Path) else tmp_path / f"bill-{number}.csv"
            if isinstance(source, str):
                path.write_text(source, "utf-8")
            named.append(str(path))
        with Bill(named, catalog, BillOptions(**options)) as bill:
            return bill.report, list(bill.messages(sent))

    return read


@pytest.fixture(scope="session")
def bills() -> Any:
    """The makers: `bills.csv(…)`, `bills.input(name)`, `bills.charges(messages)`, `bills.now`."""

    class Bills:
        csv = staticmethod(csv_of)
        now = NOW

        @staticmethod
        def input(name: str) -> Path:
            return INPUT / name

        @staticmethod
        def charges(messages: Sequence[Message]) -> list[dict[str, Any]]:
            """The rows of all charge events, in order."""
            return [
                row
                for topic, _, value, _ in messages
                if topic == "telemetry.billing"
                for row in json.loads(value)["data"]
            ]

    return Bills
