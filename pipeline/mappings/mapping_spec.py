"""The mapping language: which points of a source are one sample, and which of its metrics is which measure.

A mapping is data.  It is read from a YAML file by `mapping_file.py`, which adds the place to every complaint.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.rollup.grid import DAY

MAX_PATTERN = 500


class MappingPart(BaseModel):
    """A part of a mapping file: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _pattern(text: str) -> str:
    if len(text) > MAX_PATTERN:
        raise ValueError(f"found {len(text)} characters, expected at most {MAX_PATTERN}")
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"found {text!r}, expected a regular expression ({error})") from error
    return text


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class LabelTest(MappingPart):
    """What a label must be; an absent label is the empty text."""

    any_of: Texts | None = None
    none_of: Texts | None = None
    matches: Pattern | None = None

    def passes(self, text: str) -> bool:
        return (
            (self.any_of is None or text in self.any_of)
            and (self.none_of is None or text not in self.none_of)
            and (self.matches is None or re.search(self.matches, text) is not None)
        )


def _test(value: Any) -> Any:
    return value if isinstance(value, dict | LabelTest) else {"any_of": value}


Tests = dict[str, Annotated[LabelTest, BeforeValidator(_test)]]


class TextFrom(MappingPart):
    """Where a text comes from: a label, or the value of a metric; `pattern` takes its first group, `words` translates,
    `means` is the text wherever there is one.

    What neither the pattern nor `words` knows is no text, and the next place is asked.
    """

    label: str | None = None
    metric: str | None = None
    pattern: Pattern | None = None
    words: dict[str, Text] | None = None
    means: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> TextFrom:
        if (self.label is None) == (self.metric is None):
            raise ValueError("found both or neither, expected label or metric")
        return self

    def read(self, text: str) -> str:
        """The text that `text` stands for, empty where it stands for none."""
        if self.pattern is not None:
            found = re.search(self.pattern, text)
            text = "" if not found else found[1] or "" if found.re.groups else found[0]
        if self.words is not None:
            text = self.words.get(text, "")
        return self.means if text and self.means is not None else text


def _place(value: Any) -> Any:
    return {"label": value} if isinstance(value, str) else value


Place = Annotated[TextFrom, BeforeValidator(_place)]
Places = Annotated[list[Place], BeforeValidator(_listed), Field(min_length=1)]


class UnitWhen(MappingPart):
    """The unit where every test of `when` passes: of labels, of the form of the number, of a setting.

    `form`: `whole` and `decimal` are how an exporter printed the number, which only Prometheus text keeps; `fraction`
    is a number that is not whole, wherever it came from.  A number's size is never asked for.
    """

    unit: str
    form: Literal["whole", "decimal", "fraction"] | None = None
    labels: Tests = Field(default_factory=dict)
    settings: dict[str, Text] = Field(default_factory=dict)


Together = Literal["sum", "greatest"]


class MeasureFrom(MappingPart):
    """One way to a measure; of several the first counts whose metric is there at all.

    `metric`: names of the same metric; `add`: all of these are needed; `less`: is taken away, if it is there.  `series`:
    how several series of one sample are one value; `parts`: the same for those of disjoint parts (MIG instances), or
    `whole`: only the series of the whole counts, or `absent`: nothing is known where there are parts.
    `difference`: the metric counts since its source started, and the measure is what it has added since the report
    before; `apart`: the labels by which several counters of one sample are told apart.
    `label` and `words`: of a measure that is a word, the label that has the source's own, and what each is: the worst
    counts, in the order given.
    """

    metric: Texts | None = None
    add: Texts | None = None
    less: str | None = None
    where: Tests = Field(default_factory=dict)
    unit: str | list[UnitWhen] | None = None
    otherwise: str = ""
    series: Together = "greatest"
    parts: Together | Literal["whole", "absent"] = "greatest"
    difference: bool = False
    apart: Texts | None = None
    label: Texts | None = None
    words: dict[str, list[Text]] | None = None

    @model_validator(mode="after")
    def _one(self) -> MeasureFrom:
        if (self.metric is None) == (self.add is None):
            raise ValueError("found both or neither, expected metric or add")
        if (self.label is None) != (self.words is None):
            raise ValueError("found one of label and words, expected both or neither")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that it looks at."""
        return (*(self.metric or ()), *(self.add or ()), *([self.less] if self.less else ()))


Ways = Annotated[list[MeasureFrom], BeforeValidator(_listed), Field(min_length=1)]


class CountOf(MappingPart):
    """A metric that says how many entities a sample stands for, which are then numbered from 0 within `within`."""

    metric: Texts
    where: Tests = Field(default_factory=dict)
    within: str


class SamplesOf(MappingPart):
    """How points become the samples of one topic.

    `fields`: dimension, entity or label → where its text comes from.  `key`: the fields that tell one sample from
    another; without it the entity, or all dimensions that have a place.  `same`: names of one physical thing that come
    before the entity's own.  `joined`: metrics that add to samples, and make none.  `parts` and `copies`: labels of
    disjoint parts of an entity, and of those who share it.  `interval`: seconds between two reports.
    """

    topic: str
    fields: dict[str, Places] = Field(default_factory=dict)
    key: Texts | None = None
    same: Places | None = None
    joined: Texts | None = None
    parts: Texts | None = None
    copies: Texts | None = None
    count: CountOf | None = None
    time: Places | None = None
    interval: Annotated[int, Field(ge=1, le=DAY)] | None = None
    measures: Annotated[dict[str, Ways], Field(min_length=1)]


class NumberRange(MappingPart):
    """Numbers from `least` to `greatest`, both included."""

    least: float
    greatest: float


def _range(value: Any) -> Any:
    return value if isinstance(value, dict | NumberRange) else {"least": value, "greatest": value}


class SourceMapping(MappingPart):
    """A mapping file.  `blank`: numbers by which the source says that it measured nothing; `settings`: what a user may
    have to say because the source does not, with the words that can be said."""

    mapping: str
    source: str
    text: str = ""
    formats: Texts
    blank: list[Annotated[NumberRange, BeforeValidator(_range)]] = Field(default_factory=list)
    settings: dict[str, Texts] = Field(default_factory=dict)
    samples: Annotated[list[SamplesOf], Field(min_length=1)]

    def is_blank(self, value: float | int) -> bool:
        return any(each.least <= value <= each.greatest for each in self.blank)


class WhereRule(MappingPart):
    """A line of a table: where `label` matches, these fields are so."""

    label: str
    matches: Pattern
    set: dict[str, Text]


class Given(MappingPart):
    """What a user says of a source, beside the mapping.

    `from_label` counts before the mapping's own places, then the first line of `where` that matches; `constants` stand
    for what neither the source nor these say.  The mapping's settings are constants too.
    """

    constants: dict[str, Text] = Field(default_factory=dict)
    from_label: dict[str, Places] = Field(default_factory=dict)
    where: list[WhereRule] = Field(default_factory=list)


NOTHING_GIVEN = Given()
