"""One spelling for one GPU: UUIDs come with `GPU-` and without, in upper and in lower case, or as no identity at all.

Names that are no UUID stay as they are.  `stream/identity.py` does the same for a batch.
"""

from __future__ import annotations

import re

FORM = "(GPU-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(FORM, re.ASCII | re.IGNORECASE)
_NONE = re.compile(r"(GPU-)?0{8}-?0{4}-?0{4}-?0{4}-?0{12}", re.ASCII | re.IGNORECASE)
PREFIX = "GPU-"


def spelt(name: str) -> str | None:
    """The name in its one spelling; None when it identifies nothing: a UUID of zeros.

    >>> spelt("0001F2C3-0C43-4E0A-8A6E-61D9F0A2C001"), spelt("GPU-b-1"), spelt("GPU-00000000-0000-0000-0000-000000000000")
    ('GPU-0001f2c3-0c43-4e0a-8a6e-61d9f0a2c001', 'GPU-b-1', None)
    """
    if _NONE.fullmatch(name):
        return None
    return PREFIX + name[-36:].lower() if _UUID.fullmatch(name) else name


def stands_for(name: str | None, host: str | None, number: str | None, place: int | None) -> str | None:
    """The name in its one spelling, else host and number; `place` in the array stands for the number, if there is one."""
    if name and (one := spelt(name)):
        return one
    number = str(place) if number is None and place is not None else number
    return None if host is None or number is None else f"{host}/{number}"


def identifies_sql(text: str) -> str:
    """True for the JSON text of a name that surely identifies something."""
    return f"""NOT ends_with({text}, '000000000000"')"""
