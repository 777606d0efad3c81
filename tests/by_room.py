"""Which worker gets which tests, when several run them (`pytest -n 2`)."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

SYSTEM = "tests/system"
AS_SYSTEM = ("tests/demo",)
"""Rooms whose tests run whole installations too: two of them at once would keep each other from their deadlines."""


class ByRoom(LoadScopeScheduling):
    """A worker takes a whole folder of tests, so that what these share is made once."""

    def _split_scope(self, nodeid: str) -> str:
        return room_of(nodeid)


def room_of(nodeid: str) -> str:
    """The folder of a test, or its file where that lies in no room."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    if folder in AS_SYSTEM:
        return SYSTEM
    return file if folder == "tests" else folder


def system_first(items: list[pytest.Item]) -> None:
    """The system's tests wait more than they compute: one worker runs them one by one, the others do the rest."""
    items.sort(key=lambda item: room_of(item.nodeid) != SYSTEM)
