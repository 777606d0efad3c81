"""Importing a bill: files → rows of text → charges → a report, and the events of its deliveries.

Rows stand in a DuckDB file of the import's own, so that memory stays bounded and what is sent is what was looked at, even
if the files change meanwhile.  A bill of which any cell is refused is not sent at all: a part of a bill would replace the
whole one of before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import duckdb

from pipeline.catalog import Catalog
from pipeline.collect import bill_columns, bill_deliveries, bill_files, bill_report, google_bill, rates
from pipeline.collect.bill_files import BillFile
from pipeline.collect.bill_reading import read_rows
from pipeline.collect.bill_report import BillReport
from pipeline.errors import BillError
from pipeline.rollup.quoting import quoted

MEMORY = "200MB"
SUMMED = {"BilledCost", "BillingCurrency", "ChargeCategory", "ServiceProviderName", "ChargePeriodStart"}
"""What sums are grouped by: a bill that lacks one has none, and every row of it is refused."""
OnProgress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and how much there is of it."""


@dataclass(frozen=True, slots=True)
class BillOptions:
    """How a bill is read.  `issuer` and `export`: of all its rows; `issued`: when it was delivered, else now."""

    issuer: str | None = None
    export: str | None = None
    rates: Path | None = None
    issued: datetime | None = None


class Bill:
    """A bill that was read, in a directory of its own that goes when it is closed; `report` says what is in it."""

    def __init__(
        self,
        named: Sequence[str],
        catalog: Catalog,
        options: BillOptions,
        progress: OnProgress = lambda *_: None,
    ) -> None:
        """Raises BillError for what cannot be read as a bill at all; bad cells are in the report."""
        self.charge = next(e for e in catalog.types if e.delivery and not e.closes)
        self.closes = next(e for e in catalog.types if e.closes)
        self._options, self._progress = options, progress
        self._scratch = tempfile.TemporaryDirectory(prefix="gigawatch-bill-")
        scratch = Path(self._scratch.name)
        self.con = duckdb.connect(str(scratch / "bill.duckdb"))
        try:
            self.con.execute(f"SET memory_limit = '{MEMORY}'; SET threads = 2; SET TimeZone = 'UTC'")
            self.con.execute("SET enable_progress_bar = false")
            self.con.execute("SET temp_directory = $1", [str(scratch / "spill")])
            self.report = self._read(named, scratch)
        except duckdb.Error as error:
            self.close()
            raise BillError(f"{', '.join(named)}: cannot be read ({str(error).splitlines()[0]})") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Bill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.con.close()
        self._scratch.cleanup()

    def messages(self, time: datetime) -> Iterator[tuple[str, bytes, bytes, int]]:
        """(topic, key, value, rows) of all charge events; then those that close the deliveries, with 0 rows."""
        for delivery in self.report.deliveries:
            for value, rows in bill_deliveries.messages(self.con, self.charge, delivery, time):
                yield self.charge.topic, delivery.source.encode(), value, rows
        for delivery in self.report.deliveries:
            value = bill_deliveries.closing(self.closes, delivery, time)
            yield self.closes.topic, delivery.source.encode(), value, 0

    def _read(self, named: Sequence[str], scratch: Path) -> BillReport:
        files = bill_files.find(named, scratch)
        sources = [self._source(file) for file in files]
        taken = list(dict.fromkeys(name for source in sources for name in source.taken))
        self.con.execute(
            f"CREATE TABLE raw(file INTEGER, row BIGINT, {', '.join(f'{quoted(n)} VARCHAR' for n in taken)})"
        )
        self.con.execute("CREATE TABLE torn(file INTEGER, line BIGINT, found VARCHAR, why VARCHAR)")
        for number, (file, source) in enumerate(zip(files, sources, strict=True)):
            self._progress("files", number, len(files))
            self._take(number, file, source)
        rows = dict(self.con.execute("SELECT file, count(*) FROM raw GROUP BY file").fetchall())
        if not rows and not self.con.execute("SELECT 1 FROM torn LIMIT 1").fetchall():
            raise BillError(
                f"{', '.join(f.name for f in files)}: found no row under the column names, expected charges"
            )
        derived = self._derive(taken)
        repeated = _repeated(self.con, files)
        read_rows(self.con, self.charge, taken if not derived else _columns(self.con, "raw"))
        self.con.execute("DROP TABLE raw")
        self._progress("files", len(files), len(files))
        ignored = sorted({name for source in sources for name in source.ignored})
        return self._report(files, rows, derived, repeated, ignored)

    def _source(self, file: BillFile) -> bill_columns.BillColumns:
        if google_bill.is_google(self.con, file):
            return bill_columns.BillColumns("", google_bill.TAKEN, ())
        return bill_columns.columns_of(self.con, file, self.charge)

    def _take(self, number: int, file: BillFile, source: bill_columns.BillColumns) -> None:
        """Add a file's rows to `raw`.  Raises BillError for one that cannot be read to its end."""
        select = source.select or google_bill.google_select(self.con, file)
        try:
            self.con.execute(f"INSERT INTO raw BY NAME SELECT {number} AS file, * FROM ({select})")
        except duckdb.Error as error:
            raise BillError(f"{file.name}: cannot be read ({str(error).splitlines()[0]})") from error
        if file.form == "csv":
            _note_torn(self.con, number)

    def _derive(self, taken: Sequence[str]) -> int:
        """Costs from quantities, where rates are given or no file has any cost."""
        path = self._options.rates
        if path is None and "BilledCost" in taken:
            return 0
        derived = rates.derive_costs(self.con, taken, rates.load_rates(path) if path else ())
        if path is None and not derived:
            raise BillError(
                "the bill: found quantities and no BilledCost; expected costs, or the contract's rates: name their file "
                "with --rates"
            )
        return derived

    def _report(
        self, files: Sequence[BillFile], rows: dict[int, int], derived: int,
        repeated: Sequence[tuple[str, str, int]], ignored: Sequence[str],
    ) -> BillReport:  # fmt: skip
        ((cells, bad),) = self.con.execute("SELECT count(*), count(DISTINCT (file, row)) FROM bad").fetchall()
        torn = self.con.execute("SELECT count(*) FROM torn").fetchall()[0][0]
        known = set(_columns(self.con, "charges")) >= SUMMED
        return BillReport(
            files=[(file.name, rows.get(number, 0)) for number, file in enumerate(files)],
            rows=sum(rows.values()) + torn,
            refused_rows=bad + torn,
            refused_cells=cells + torn,
            refusals=bill_report.refusals(self.con, files),
            sums=bill_report.sums_of(self.con) if known else {},
            quantities=bill_report.quantities_of(self.con) if known else [],
            deliveries=() if bad + torn else self._deliveries(files),
            derived=derived,
            ignored=ignored,
            repeated=repeated,
        )

    def _deliveries(self, files: Sequence[BillFile]) -> list[bill_deliveries.BillDelivery]:
        options = self._options
        issued = options.issued.isoformat() if options.issued else ""
        try:
            return bill_deliveries.make_deliveries(
                self.con, self.charge, options.issuer, options.export, issued
            )
        except bill_deliveries.TooLong as error:
            number, row = error.args
            line = bill_columns.lines_of(files[number], [row])[row] if files[number].form == "csv" else row
            raise BillError(
                f"{files[number].name}:{line}: found a row of more than {bill_deliveries.MESSAGE_BYTES:,} bytes, which no "
                "message can hold; shorten its tags"
            ) from error


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall() if name not in ("file", "row")]


def _note_torn(con: duckdb.DuckDBPyConnection, number: int) -> None:
    """Keep in `torn` which lines of the CSV file that was read last are no rows: cut off, or of too many cells."""
    con.execute(
        f"INSERT INTO torn SELECT {number}, line, left(trim(any_value(csv_line), chr(13) || chr(10)), 200), "
        "min(error_message) FROM reject_errors GROUP BY line"
    )
    for table in ("reject_errors", "reject_scans"):
        con.execute(f"DROP TABLE {table}")


def _repeated(con: duckdb.DuckDBPyConnection, files: Sequence[BillFile]) -> list[tuple[str, str, int]]:
    """Pairs of files with rows in common."""
    if len(files) == 1:
        return []
    content = ", ".join(map(quoted, _columns(con, "raw")))
    con.execute(f"CREATE TABLE hashes AS SELECT DISTINCT file, hash({content}) AS content FROM raw")
    found = con.execute(
        "SELECT a.file, b.file, count(*) FROM hashes a JOIN hashes b ON a.content = b.content AND a.file < b.file "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    con.execute("DROP TABLE hashes")
    return [(files[a].name, files[b].name, n) for a, b, n in found]
