"""A verdict: one reading, judged at one instant against the bound in force then."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from pipeline.contract.money import money_text
from pipeline.readings import Readings, ReadingSpec

State = Literal["ok", "breach", "unknown"]
Labels = tuple[tuple[str, str], ...]
Answers = Mapping[ReadingSpec, Readings]


class Terms(NamedTuple):
    """What is in force for one alert of one clause at an instant; made once and shared by many verdicts.

    `hold` is the clause's `for`, `keep` its `keep_firing_for`, `span` how long an unknown is put up with:
    all in seconds.  `by` names the dimensions that, with their values, complete the alert's identity.
    """

    alertname: str
    contract: str
    clause: str
    by: tuple[str, ...]
    bound: float
    unit: str
    window: str | None
    severity: str
    route: Labels
    hold: int
    keep: int
    span: int


class Verdict(NamedTuple):
    """`by` holds the values for `terms.by`.  `details`: facts for the annotations, by name."""

    terms: Terms
    by: tuple[str, ...]
    t: int
    state: State
    observed: float | None
    samples: int = 0
    trusted: bool = True
    details: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str, str, tuple[str, ...]]:
        """The alert's identity, as a tuple: alertname, contract, clause, values of `by`."""
        return (self.terms.alertname, self.terms.contract, self.terms.clause, self.by)

    @property
    def facts(self) -> str:
        """The details as a JSON object: what a reader of the history sees beside the number; exact decimals as text."""
        return json.dumps(_plain(dict(self.details or {})), ensure_ascii=False)

    @property
    def brief_facts(self) -> str:
        """The facts without those that are lists or objects, such as every day of a tranche: for the history."""
        plain = _plain(
            {n: v for n, v in (self.details or {}).items() if not isinstance(v, tuple | list | Mapping)}
        )
        return json.dumps(plain, ensure_ascii=False)

    @property
    def labels(self) -> Labels:
        """The full label set, sorted.  A label with an empty value is no label."""
        terms = self.terms
        found = dict(terms.route)
        found.update(zip(terms.by, self.by, strict=True))
        found.update(
            alertname=terms.alertname, contract=terms.contract, clause=terms.clause, severity=terms.severity
        )
        return tuple(sorted((name, value) for name, value in found.items() if value))


def _plain(value: Any) -> Any:
    """`value` as JSON can say it: named tuples become objects."""
    if isinstance(value, Decimal):
        return money_text(value)
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value
