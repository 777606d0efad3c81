"""What `gigawatch doctor` looks at on this machine: versions, ports, disk, contract, data directory."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
from packaging.requirements import InvalidRequirement, Requirement

from pipeline import catalog
from pipeline.clauses import check, load_all, plan_of
from pipeline.doctor.findings import Finding, fail, ok, warn
from pipeline.errors import GigawatchError, LedgerError
from pipeline.history import unmatched, verify
from pipeline.ledger import counter, files, status
from pipeline.ledger.frontier import newest_watermark
from pipeline.ledger.tables import SCHEMA_VERSION, get_meta
from pipeline.serve.status_report import QUIET_AFTER, reopened
from pipeline.serve.terminal import duration

PYTHON = (3, 11)
TELLING = ("duckdb", "aiokafka", "faust-streaming", "kafka-python", "pyarrow")
"""Packages whose versions decide whether the pipeline works; the others are only checked."""
INSTALL = "install what the lock file names: pip install --require-hashes --no-deps -r requirements.lock"
NEEDED_BYTES = 2**30
"""Free space below which a batch, a seal and a compaction may not fit any more."""
REMEDY = (
    "restore a missing or changed file from a backup, move a copied or unknown one out of the data directory; all but "
    "history/ is written anew by the pipeline"
)
"""What to do about published files that are not as they were published."""
SCARCE_BYTES = 10 * 2**30
MEND_MATCH = "mend its `match`, or the labels at the source: nobody watches what it promises; if it is still to come, wait"


def versions(python: tuple[int, int] = sys.version_info[:2]) -> Iterator[Finding]:
    """Python, and every package against what this version of Gigawatch asks for."""
    found = f"Python {python[0]}.{python[1]}"
    if python < PYTHON:
        yield fail("versions", found, f"use Python {PYTHON[0]}.{PYTHON[1]} or newer")
        return
    try:
        wanted = metadata.requires("gigawatch") or []
    except metadata.PackageNotFoundError:
        yield warn(
            "versions", f"{found}; gigawatch runs without being installed", "make setup, or: pip install ."
        )
        return
    installed = {name: _installed(name) for name in (_named(line).name for line in wanted)}
    wrong = list(unmet(wanted, installed))
    if wrong:
        yield fail("versions", "; ".join(wrong), INSTALL)
    else:
        yield ok("versions", ", ".join([found, *(f"{name} {installed[name]}" for name in TELLING)]))


def unmet(wanted: list[str], installed: Mapping[str, str | None]) -> Iterator[str]:
    """What of the requirements `wanted` is not `installed` (name → version), in words; extras are left out."""
    for line in wanted:
        needs = _named(line)
        if needs.marker and not needs.marker.evaluate({"extra": ""}):
            continue
        version = installed.get(needs.name)
        if version is None or not needs.specifier.contains(version, prereleases=True):
            yield f"found {needs.name} {version or 'missing'}, expected {needs.specifier or 'any'}"


def _named(line: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        raise GigawatchError(f"the package's own requirement {line!r} cannot be read; {INSTALL}") from error


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def port(what: str, host: str, number: int, running: bool) -> Iterator[Finding]:
    """Whether `what` can listen on the port; a pipeline that is `running` already holds it itself."""
    where = f"{what}, {host}:{number}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
        except PermissionError:
            yield warn("ports", f"{where}: this user may not open it", "give it one above 1024")
        except OSError as error:
            if running:
                yield ok("ports", f"{where}: in use, while the pipeline runs")
            else:
                option = "--board" if "board" in what else "--door"
                yield warn(
                    "ports",
                    f"{where}: {error.strerror}",
                    f"end what listens there, or give it another port: {option} HOST:PORT",
                )
        else:
            yield ok("ports", f"{where}: free")


def disk(data: Path) -> Iterator[Finding]:
    """Room, and whether files can be put in place in one step, where the data directory is or will be."""
    place = _nearest(data)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as scratch:
            exchanges = files.can_exchange(Path(scratch))
    except OSError as error:
        yield fail(
            "disk",
            f"{place}: user {os.getuid()} cannot write there ({error.strerror})",
            "give the directory to that user, or name another one with --data",
        )
        return
    yield room(place, *_bytes(place))
    if exchanges:
        yield ok("disk", f"{place}: directories are replaced in one step")
    else:
        yield warn(
            "disk",
            f"{place}: this file system cannot exchange two names (renameat2)",
            "use a local ext4, XFS or Btrfs; here small files are never merged, and queries grow slower",
        )


def room(place: Path, free: int, total: int) -> Finding:
    """Whether `free` of `total` bytes is enough."""
    found = f"{place}: {free / 2**30:,.1f} of {total / 2**30:,.1f} GiB free"
    if free < NEEDED_BYTES:
        return fail("disk", found, "free at least 1 GiB, or name a larger disk with --data")
    if free < SCARCE_BYTES:
        return warn("disk", found, "a fleet's raw history needs more: docs/operations.md has the figures")
    return ok("disk", found)


def _nearest(path: Path) -> Path:
    """The directory itself, or the first above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _bytes(place: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(place)
    return usage.free, usage.total


def contract(path: Path | None, schemas: Path | None, now: float) -> Iterator[Finding]:
    """Schemas and contracts as the pipeline would load them at `now` (wall clock, epoch seconds)."""
    catalog.load(schemas)
    if path is None:
        yield warn(
            "contract", "none is named", "name one with --contract; without it only the history is kept"
        )
        return
    if faults := check([path]):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        yield fail("contract", f"{faults[0]}{more}", f"mend it; all of it: gigawatch contract check {path}")
        return
    for one in load_all(path):
        found = f"{one.id} {one.version}: {len(one.clauses)} clauses"
        if one.in_force(int(now)):
            yield ok("contract", f"{found}, in force")
        else:
            yield warn(
                "contract", f"{found}, not in force now", f"nothing is promised: see `term` in {one.path}"
            )


def directory(data: Path, now: float, schemas: Path | None = None) -> Iterator[Finding]:
    """The data directory: who holds it, how its pipeline is or ended, whether the ledger can be read."""
    if not (data / "ledger.duckdb").exists():
        yield ok("data", f"{data}: no ledger yet, the first start makes it")
        return
    writer, last = status.writer_of(data), status.read(data)
    if last is not None:
        yield pulse(data, last, writer, now)
        yield from _told(last)
    if writer is None:
        yield ledger(data)
        yield from history(data, catalog.load(schemas))
    elif last is not None:
        for line in last.get("tampered", ()):
            yield fail("history", line, REMEDY)


def pulse(data: Path, last: Mapping[str, Any], writer: int | None, now: float) -> Finding:
    """Whether the pipeline lives, by the process that holds the lock and the age of its last status."""
    age = status.age(last, now)
    if writer is None:
        if last["state"] == "stopped":
            return ok("data", f"{data}: stopped {duration(age)} ago, in good order")
        if last["state"] == "failed":
            said = f"{data}: its pipeline ended with an error {duration(age)} ago: {last.get('error')}"
            return fail(
                "data", said, "mend what it names, then start it again with gigawatch run: nothing is lost"
            )
        return warn(
            "data",
            f"{data}: its pipeline ended without a word {duration(age)} ago",
            "see its log; nothing is lost, start it again with gigawatch run",
        )
    found = f"{data}: process {writer} runs, its status is {duration(age)} old"
    if last.get("stalled"):
        return fail("data", f"{data}: process {writer} runs, and {last['stalled']}", "mend what it names")
    if age > QUIET_AFTER:
        return fail("data", found, "it hangs, or its clock differs: see its log, and restart it")
    return ok("data", found)


def _told(last: Mapping[str, Any]) -> Iterator[Finding]:
    """What the pipeline itself complains of."""
    if last["contract_error"]:
        yield fail(
            "contract",
            f"the pipeline refuses the new one: {last['contract_error']}",
            "mend it: the old one goes on",
        )
    yield from (fail("contract", words, MEND_MATCH) for words in last.get("unmatched", ()))
    for command, server in last.get("servers", {}).items():
        if server["error"]:
            yield fail(
                "ports", f"the {command} is shut: {server['error']}", "mend it: it opens by itself then"
            )
        elif server.get("again"):
            yield warn(
                "ports",
                f"the {command} is open{reopened(server)}",
                "see the log for what was asked then; it goes on by itself",
            )
    for row in last["undelivered"]:
        if row["last_error"]:
            yield warn(
                "data",
                f"{row['count']} alerts wait for {row['destination']}: {row['last_error']}",
                f"mend {row['destination']}; they go out by themselves then",
            )


def matches(data: Path, path: Path | None, schemas: Path | None, now: float) -> Iterator[Finding]:
    """The clauses that match nothing that the ledger has ever seen, where no pipeline runs that would say so itself."""
    if (
        path is None
        or status.writer_of(data) is not None
        or not (data / "ledger.duckdb").exists()
        or check([path])
    ):
        return
    types = catalog.load(schemas)
    try:
        with duckdb.connect(str(data / "ledger.duckdb"), read_only=True) as con:
            if newest_watermark(con) is not None:
                for one in unmatched.look(con, plan_of(load_all(path), types), types, int(now)):
                    yield (warn if one.billed else fail)("contract", str(one), MEND_MATCH)
    except duckdb.Error:
        return  # `ledger` says why


def ledger(data: Path) -> Finding:
    """Whether this program can open the ledger that nobody writes now; it is only read."""
    path = data / "ledger.duckdb"
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            version = get_meta(con, "schema_version")
    except duckdb.Error as error:
        return fail(
            "data",
            f"{path}: {str(error).splitlines()[0]}",
            "restore it from a backup, or begin anew with another --data while Kafka still has the records",
        )
    if version is None or int(version) > SCHEMA_VERSION:
        return fail(
            "data",
            f"{path}: schema version {version}, this program knows {SCHEMA_VERSION}",
            "use the newer Gigawatch that wrote it",
        )
    return ok("data", f"{path}: can be read, schema version {version}")


def history(data: Path, types: catalog.Catalog) -> Iterator[Finding]:
    """Where the published files are not those that the ledger knows, by their checksums; all of them are read."""
    path = data / "ledger.duckdb"
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            counter.check(con, data)
            found = verify.tampered(con, data, types)
    except LedgerError as error:
        yield fail("history", *str(error).rsplit(". ", 1))
    except duckdb.Error:
        return  # `ledger` says why; and one of an older Gigawatch has noted no checksums yet
    else:
        yield from (fail("history", f"{data}: {one}", REMEDY) for one in found[: verify.TOLD])
        if len(found) > verify.TOLD:
            yield fail("history", f"{data}: and {len(found) - verify.TOLD} more files", REMEDY)


def ledger_cluster(data: Path) -> str | None:
    """The Kafka cluster that the ledger was written from; None when there is none, or while it is in use."""
    path = data / "ledger.duckdb"
    if not path.exists() or status.writer_of(data) is not None:
        return None
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            return get_meta(con, "cluster_id")
    except duckdb.Error:
        return None  # `ledger` says why
