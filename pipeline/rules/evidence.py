"""The SQL that goes under an alert: each rule asks for what reproduces its number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pipeline.catalog import Catalog
from pipeline.readings import Group, Instant, ReadingSpec
from pipeline.rules.verdicts import Verdict


class Evidence(NamedTuple):
    """What that SQL has to know beside its question.

    `slow`: topic → seconds between two reports of its slowest source, where any declares more than the schema says.
    """

    catalog: Catalog
    slow: Mapping[str, int] = MappingProxyType({})

    def value(self, spec: ReadingSpec, t: int, group: Group, basis: str = "", frozen: bool = True) -> str:
        """One SELECT whose only value is the reading of `spec` at `t` for `group`; the rest as `Instant` has it."""
        at = Instant(t, self.slow.get(spec.topic, 0), basis, frozen)
        return spec.reproduce(self.catalog.by_topic(spec.topic), group, at)

    def missing(self, spec: ReadingSpec, t: int, group: Group) -> str:
        """One SELECT with a row for each entity of `group` that is not delivered at `t`."""
        at = Instant(t, self.slow.get(spec.topic, 0))
        return spec.rows_sql(self.catalog.by_topic(spec.topic), group, at)


def group_of(verdict: Verdict) -> Group:
    """The group that a verdict is on, as dimension → value."""
    return dict(zip(verdict.terms.by, verdict.by, strict=True))
