"""A fence around a thread, by Linux' Landlock: it writes below one folder and nowhere else, root or not.

It is the last line: if a question ever gets past the check and DuckDB's own settings, the kernel still keeps the
published files.  Threads that a fenced one starts are inside, too; the others are not, so the folder can be removed.
The numbers are of the kernel's own documentation, userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
VERSION, PATH_BENEATH = 1, 1
SET_NO_NEW_PRIVS = 38
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
# Writing a file; removing and making what a directory holds; linking across directories; cutting short.
WRITES = WRITE_FILE | sum(1 << n for n in range(4, 13))
SINCE = ((2, 1 << 13), (3, TRUNCATE))
"""Rights that came with a later version of Landlock."""


def fence(folder: Path) -> bool:
    """Fences the calling thread in; False where the kernel has no Landlock.  Raises OSError."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)
    if version < 1:
        return False
    rights = WRITES | sum(right for since, right in SINCE if version >= since)
    attributes = struct.pack("=Q", rights)
    rules = _called(libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    try:
        _allow(libc, rules, folder, rights)
        _allow(libc, rules, Path(os.devnull), rights & (WRITE_FILE | TRUNCATE))
        _called(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _called(libc.syscall(RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
    return True


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _called(libc.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, place), 0))
    finally:
        os.close(place)


def _called(answer: int) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return answer
