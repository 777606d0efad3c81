"""Durable steps with files: a reader finds a whole file under its name, or none.

A file is written in `DATA/staging/`, which no reader looks into, fsynced, and renamed into place; then its
directory is fsynced.  A directory is replaced in one step by exchanging two names, so that a glob lists the
old files or the new ones and never a mixture.  What was exchanged out stays in `staging/` until the next
round: a reader that opened the directory just before may still be listing it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from pipeline.errors import DiskFull, GigawatchError, LedgerError

SWEEP_AFTER = 5.0  # seconds; listing a directory takes far less
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux, renameat2(2)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN = (duckdb.IOException, duckdb.FatalException, duckdb.InternalException)
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def private_from_now_on() -> None:
    """What this process makes is for owner and group: directories 750, files 640.  A stricter umask stays."""
    os.umask(os.umask(0o027) | 0o027)


def keep_private(data: Path) -> None:
    """Closes a directory that others may enter, as far as it is ours to close."""
    mode = stat.S_IMODE(data.stat().st_mode)
    if mode & 0o027:
        with contextlib.suppress(PermissionError):
            data.chmod(mode & ~0o027)


def refuse_links(data: Path) -> None:
    """Raises LedgerError for a symbolic link under `data`: what is written or published would be somewhere else."""
    for folder, names, found in os.walk(data):
        for name in (*names, *found):
            path = Path(folder, name)
            if path.is_symlink():
                raise LedgerError(
                    f"{path}: found a symbolic link to {os.readlink(path)}, expected none in a data directory; take it "
                    "away, or mount the other disk there"
                )


def staging(data: Path) -> Path:
    """The directory for what is being written; on the same file system as the published files."""
    path = data / "staging"
    path.mkdir(parents=True, exist_ok=True)
    return path


def token() -> str:
    """A name that no other file has had, and so no reader remembers."""
    return secrets.token_hex(8)


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turns what a full or failing disk raises, in Python or DuckDB, into an error that says what to do."""
    try:
        yield
    except GigawatchError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise _full(target, error) from error
        raise LedgerError(f"{target}: cannot be written ({error}); check the disk and its rights") from error
    except Exception as error:
        if is_full(error):
            raise _full(target, error) from error
        if isinstance(error, _BROKEN):
            raise damaged(target, error) from error
        raise


def is_full(error: Exception) -> bool:
    """Whether an error of DuckDB's own, which carries no number, says that the disk is full."""
    return any(os.strerror(number) in str(error) for number in _FULL)


def damaged(target: Path, error: Exception) -> LedgerError:
    """What is said when DuckDB cannot go on with a file, of the ledger or of the history."""
    return LedgerError(
        f"{target}: DuckDB cannot go on ({str(error).splitlines()[0]}): a file there is damaged, or was changed or taken "
        "away while it was open; gigawatch doctor names what is wrong with the published files; restore the whole data "
        "directory from one backup, or start on an empty one while Kafka still has the records"
    )


def _full(target: Path, error: Exception) -> DiskFull:
    return DiskFull(
        f"{target}: no space left on the disk ({str(error).splitlines()[0]}); free space, then start "
        "again: nothing is lost; with a smaller keep_raw_days less is kept"
    )


def fsync(path: Path) -> None:
    """Waits until a file's content, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Creates a directory and its parents, each entry on the disk before the next."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def move(staged: Path, target: Path) -> None:
    """Renames a fsynced file or directory into place; a file of that name is replaced as a whole."""
    make_directory(target.parent)
    os.replace(staged, target)


def exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; False, with nothing changed, where the system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done == 0:
        fsync(one.parent)
        fsync(other.parent)
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one))


def can_exchange(data: Path) -> bool:
    """Whether directories under `data` can be swapped in one step (Linux, and not every file system)."""
    one, other = staging(data) / token(), staging(data) / token()
    one.mkdir()
    other.mkdir()
    try:
        return exchange(one, other)
    finally:
        one.rmdir()
        other.rmdir()


def discard(path: Path) -> None:
    """Removes a file or directory that nobody reads any more; being gone already is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def retire(data: Path, path: Path) -> None:
    """Takes a published file or directory out of the readers' sight; `sweep` frees its space later."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, staging(data) / f"old-{token()}")


def sweep(data: Path) -> None:
    """Frees what was retired more than SWEEP_AFTER ago."""
    now = time.time()
    for path in staging(data).glob("old-*"):
        with contextlib.suppress(FileNotFoundError):
            if now - path.stat().st_ctime > SWEEP_AFTER:
                discard(path)


def sweep_all(data: Path) -> None:
    """Empties `staging/`; only at start, when renames are completed and nothing is being written."""
    for path in staging(data).iterdir():
        discard(path)
