"""The files of a bill: found by path, directory or s3:// URL, and known by their first bytes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.collect.bill_objects import fetched
from pipeline.errors import BillError

Form = Literal["csv", "parquet", "json"]
ENDINGS = (".csv", ".csv.gz", ".parquet", ".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
"""Of a directory's files these are read; those that begin with a dot or an underscore are not, as Spark has it."""
_NO_FILE = f"{{where}}: found no file of a bill; expected names that end in {', '.join(ENDINGS)}"
_LOOK = 4096


@dataclass(frozen=True, slots=True)
class BillFile:
    """A file with rows of a bill: `name` as the user knows it, `path` where its bytes are on this machine."""

    name: str
    path: Path
    form: Form
    gzipped: bool

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def find(named: Sequence[str], scratch: Path) -> list[BillFile]:
    """The files that are named, those of directories in the order of their names; what is on S3 is fetched to `scratch`.

    Raises BillError for what is not there, cannot be read, or has no rows of a bill by its first bytes.
    """
    found = [
        file for name in named for file in (_of_s3(name, scratch) if "://" in name else _of_disk(Path(name)))
    ]
    if len({file.path.resolve() for file in found}) < len(found):
        raise BillError("a file is named twice, so its rows would count twice; name each once")
    return found


def _of_disk(named: Path) -> Iterator[BillFile]:
    if not named.is_dir():
        yield _known(str(named), named)
        return
    paths = sorted(path for path in named.rglob("*") if path.is_file() and _is_bill(path.name))
    if not paths:
        raise BillError(_NO_FILE.format(where=named))
    yield from (_known(str(path), path) for path in paths)


def _is_bill(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith((".", "_"))


def _of_s3(url: str, scratch: Path) -> Iterator[BillFile]:
    """What lies at or below `url`."""
    found = False
    for name, path in fetched(url, _is_bill, scratch):
        found = True
        yield _known(name, path)
    if not found:
        raise BillError(_NO_FILE.format(where=url))


def _known(name: str, path: Path) -> BillFile:
    """The file with its form, by its first bytes: names lie."""
    try:
        with path.open("rb") as opened:
            begins = opened.read(_LOOK)
        gzipped = begins[:2] == b"\x1f\x8b"
        if gzipped:
            with gzip.open(path) as opened:
                begins = opened.read(_LOOK)
    except (OSError, EOFError) as error:
        raise BillError(
            f"{name}: cannot be read ({error}); check the path, its rights, and that it is whole"
        ) from error
    if not begins.strip():
        raise BillError(f"{name}: found an empty file, expected rows of a bill under a line of column names")
    if begins[:4] == b"PAR1":
        return BillFile(name, path, "parquet", False)
    for mark, what in (
        (b"PK\x03\x04", "a zip archive; unpack it"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ):
        if begins.startswith(mark):
            raise BillError(f"{name}: found {what}; expected CSV or JSON in UTF-8 (also as .gz), or Parquet")
    text = begins.removeprefix(b"\xef\xbb\xbf").lstrip()
    return BillFile(name, path, "json" if text[:1] in (b"{", b"[") else "csv", gzipped)
