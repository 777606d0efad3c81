"""Slurm's own words for its nodes: a line of `scontrol show nodes -o` for each, `Key=Value` with spaces in the values.

The GPUs of a node are the points `slurm_node_gres_total` and `slurm_node_gres_used`, as exporters call them, with the
labels node, gres_type, state and partition (the first of the node's: a node counts once).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pipeline.formats.point import Point, Undecodable, bounded

NAME = "scontrol"
_PAIR = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9_:/]*)=")
_GRES = re.compile(
    r"(?P<kind>[^:,()]+)(?::(?P<type>[^:,()]+(?=:)))?(?::(?P<count>\d{1,6}))(?:\([^)]*\))?(?:,|$)"
)


def points(raw: bytes) -> Iterator[Point]:
    """The GPUs of every node.  Raises Undecodable with the line that names no node."""
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8") from error
    yield from bounded(
        point for number, line in enumerate(lines, 1) if line.strip() for point in _node(_pairs(line), number)
    )


def _pairs(line: str) -> dict[str, str]:
    found = list(_PAIR.finditer(line))
    ends = [each.start() for each in found[1:]] + [len(line)] * bool(found)
    pairs: dict[str, str] = {}
    for each, end in zip(found, ends, strict=True):
        pairs.setdefault(each[1], line[each.end() : end].strip())
    return pairs


def _node(pairs: Mapping[str, str], number: int) -> Iterator[Point]:
    if "NodeName" not in pairs or "State" not in pairs:
        raise Undecodable(
            "not_scontrol", f"line {number}", "no NodeName or no State", "a node of scontrol show nodes -o"
        )
    shared = {
        "node": pairs["NodeName"],
        "state": pairs["State"],
        "partition": pairs.get("Partitions", "").split(",")[0],
    }
    for name, key in (("slurm_node_gres_total", "Gres"), ("slurm_node_gres_used", "GresUsed")):
        for found in _GRES.finditer(pairs.get(key, "")):
            kind = f"{found['kind']}:{found['type']}" if found["type"] else found["kind"]
            yield Point(name, {**shared, "gres_type": kind}, int(found["count"]), None, "gauge")
