"""A format of points: its name, how its messages are told apart, and the points that one holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.formats.point import Point, Undecodable


@dataclass(frozen=True, slots=True)
class PointFormat:
    """One format of points, which a mapping makes samples of; the settings of a source say that its topic has it.

    `points` gives what one message or scrape holds, and raises Undecodable.
    `on_kafka`: whether a topic may carry it; the others are what an endpoint or a file holds.
    `carefully`: the same, a point at a time, where `points` is a fast way of its own; a law says that both agree
    (`tests/formats/test_fast_points_law.py`).
    """

    name: str
    says: str
    points: Callable[[bytes], Iterable[Point]]
    on_kafka: bool = True
    carefully: Callable[[bytes], Iterable[Point]] | None = None

    def messages(self, raw: bytes) -> Iterator[bytes]:
        """The messages of a file: all of it, or each of its lines where it is none as a whole."""
        lines = [line for line in raw.splitlines() if line.strip()]
        if len(lines) > 1:
            try:
                for _ in self.points(raw):
                    pass
            except Undecodable as whole:
                try:
                    for _ in self.points(lines[0]):
                        pass
                except Undecodable:
                    raise whole from None
                yield from lines
                return
        yield raw
