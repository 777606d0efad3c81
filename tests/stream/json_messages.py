"""CloudEvents in JSON, good and broken, as Hypothesis draws them for the law of the formats.

They are generated as text, so that every spelling of JSON is met: escapes, repeated keys, commas and numbers that one
reader takes and another does not.
"""

from __future__ import annotations

import json

from hypothesis import strategies as st

from pipeline.catalog import EventType, Field, Measure

Text = st.SearchStrategy[str]
Header = tuple[str, bytes | None]

ODD_NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "1",
        "1.0",
        "1e0",
        "1E0",
        "15e-1",
        "3.7",
        "1e3",
        "1e999",
        "1e-400",
        "-1",
        "4294967295",
        "NaN",
        "nan",
        "-inf",
        "Infinity",
        "01",
        "+1",
        ".5",
        "1.",
        "1_0",
        "0x10",
        "9" * 25,
        "9" * 500,
        "0.1234567890123456789",
        "8000000.0000000001",
        "12345678901234567.12345678915",
        "0.00000000005",
        "-0.00000000005",
        "9223372036854775808",
        "9007199254740993",
    ]
)
NUMBERS = st.one_of(
    ODD_NUMBERS,
    st.floats(0, 1).map(repr),
    st.integers(0, 1000).map(str),
    st.decimals(-1000, 1000, places=12, allow_nan=False).map(str),
)
STRINGS = st.one_of(
    st.sampled_from(["ok", "failed", "c1", "", "São Paulo", "😀", "x" * 300, "😀" * 200, "a\nb", "a\\b", 'a"b', "a\x00b", "1.5"]),
    st.text(max_size=8),
).flatmap(lambda s: st.booleans().map(lambda ascii: json.dumps(s, ensure_ascii=ascii)))  # fmt: skip
RAW_STRINGS = st.sampled_from(
    ['"\\ud800"', '"a\\ud83d\\ude00"', '"\\u0061"', '"a\tb"', '"\\x41"', "'c1'", '"a\\/b"']
)
TIMES = st.sampled_from(
    [
        "2026-09-21T13:33:20Z",
        "2026-09-21T13:33:20.5Z",
        "2026-09-21T13:33:20.1234567Z",
        "2026-09-21t13:33:20z",
        "2026-09-21 13:33:20Z",
        "2026-09-21T15:33:20+02:00",
        "2026-09-21T13:33:20",
        "2026-09-21",
        "2026-09-21T13:33Z",
        "2026-09-21T24:00:00Z",
        "2026-09-21T13:33:60Z",
        "-2026-09-21T13:33:20Z",
        "12026-09-21T13:33:20Z",
        "2026-9-21T13:33:20.0Z",
        "0001-01-01T00:00:00+14:00",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "2026-09-21T13:33:20+25:00",
        "2026-09-21T13:33:20+01:99",
        "   2026-09-21T13:33Z",
        "2026-09-21 (BC) 13:33:20Z",
        "2026/09/21T13:33:20Z",
        "infinity",
        "epoch",
        "2026-02-29T00:00:00Z",
        "2026-09-21T13:33:20.Z",
        "2026-09-21T13:33:20 UTC",
        "2026-09-21T13:33:20+00Z",
        "2026-09-21T13:33:20.123456789-09:30",
        "1969-12-31T23:59:55Z",
        "2026-09-21 13:33",
        "2026-09-21 13:33:20.123",
        "2026-09-21T15:33+02:00",
        "2016-12-31T23:59:60Z",
        "2017-01-01T00:59:60.5+01:00",
        "2026-09-21T15:33:20+0200",
        "2026-09-21T15:33:20,25+02",
        "20260921T133320Z",
        "20260921",
        "2026-09-21T13:33:99Z",
    ]
).map(json.dumps)
DEEP = st.sampled_from([5, 199, 201, 950, 3000]).map(lambda n: "[" * n + "1" + "]" * n)
ODD_VALUES = st.one_of(
    st.sampled_from(
        ["null", "true", "false", "{}", "[]", "[null]", '{"a":1}', "[1,2,]", "[1 ,\n2]", "{,}", ""]
    ),
    DEEP,
    NUMBERS,
    STRINGS,
    RAW_STRINGS,
    TIMES,
)
SPACES = st.sampled_from([""] * 16 + [" "] * 4 + ["\n\t ", "\r\n", "\u00a0", "\x0b"])


@st.composite
def tags(draw: st.DrawFn) -> str:
    """An object as tags are, mostly plain: keys may come again, blanks stand where they may."""
    plain = st.sampled_from(["team", "cost centre", "", "é😀", "it's", "a/b", "{", "\x7f", "\u2028"]).map(
        lambda s: json.dumps(s, ensure_ascii=False)
    )
    values = st.one_of(*[plain] * 4, st.sampled_from(["true", "null", "0", "-0", "1e3", "[]", "{}"]), STRINGS)
    keys = st.one_of(*[plain] * 9, STRINGS)
    pairs = draw(st.lists(st.tuples(keys, values), max_size=4))
    space, end = draw(st.sampled_from(["", " ", "\n\t"])), draw(st.sampled_from([""] * 9 + [","]))
    return (
        "{"
        + space
        + f"{space},{space}".join(f"{k}{space}:{space}{v}" for k, v in pairs)
        + (end if pairs else "")
        + space
        + "}"
    )


def good(column: Field | Measure) -> Text:
    """The text of a value that the schema accepts."""
    if column.enum:
        return st.sampled_from(column.enum).map(json.dumps)
    if column.kind == "time":
        return st.sampled_from(['"2026-09-21T13:33:20.5Z"', '"2026-09-21T15:33:20+02:00"'])
    if column.kind == "json":
        odd = st.sampled_from(
            ['{"a": 1.50, "a": 2, "b":{"c":[1e-7,10000000000000000.0]}}', '{"team":"x"}', "{}"]
        )
        return st.one_of(odd, tags())
    if isinstance(column, Field):
        return st.sampled_from(["c1", "GPU-1", "São Paulo"]).map(json.dumps)
    if column.kind == "money":
        return st.one_of(NUMBERS, NUMBERS.map(json.dumps))
    low, high = column.minimum or 0, min(column.maximum or 0, 1e6)
    one = st.integers(int(low), int(high)).map(str) if column.integer else st.floats(low, high).map(repr)
    return st.lists(one, max_size=4).map(lambda v: f"[{','.join(v)}]") if column.kind == "histogram" else one


@st.composite
def objects(draw: st.DrawFn, pairs: list[tuple[str, Text]], odd: Text) -> str:
    """An object with these properties; at most two of them have something odd about them."""
    found = [[json.dumps(name), draw(values)] for name, values in pairs]
    for _ in range(draw(st.sampled_from([0] * 6 + [1] * 3 + [2]))):
        position = draw(st.integers(0, len(found) - 1))
        kind = draw(
            st.sampled_from(["value", "value", "value", "drop", "again", "case", "escape", "unknown", "x_"])
        )
        name = pairs[min(position, len(pairs) - 1)][0]
        if kind == "value":
            found[position][1] = draw(odd)
        elif kind == "drop" and len(found) > 1:
            del found[position]
        elif kind == "again":
            found.insert(draw(st.integers(0, len(found))), [json.dumps(name), draw(odd)])
        elif kind == "case":
            found[position][0] = json.dumps(name.swapcase())
        elif kind == "escape":
            found[position][0] = f'"\\u{ord(name[0]):04x}{name[1:]}"'
        else:
            found.append([json.dumps("x_" + name if kind == "x_" else "undeclared"), draw(odd)])
    space, comma = draw(SPACES), draw(st.sampled_from([""] * 15 + [","]))
    return "{" + f"{space},".join(f"{k}:{space}{v}" for k, v in found) + comma + space + "}"


def samples(event: EventType) -> Text:
    columns: list[Field | Measure] = [*event.fields, *event.measures]
    needed = [c for c in columns if not c.optional]
    spare = [c for c in columns if c.optional]
    some = st.lists(st.sampled_from(spare), max_size=5, unique_by=lambda c: c.name) if spare else st.just([])
    return some.flatmap(lambda chosen: objects([(c.name, good(c)) for c in (*needed, *chosen)], ODD_VALUES))


def datas(event: EventType) -> Text:
    one = samples(event)
    array = st.lists(st.one_of(*[one] * 9, ODD_VALUES), max_size=4).flatmap(
        lambda found: st.sampled_from(["", "", ","]).map(
            lambda end: f"[{','.join(found)}{end if found else ''}]"
        )
    )
    return st.one_of(*[one] * 5, *[array] * 5, ODD_VALUES)


ATTRIBUTES: dict[str, Text] = {
    "specversion": st.sampled_from(["1.0"] * 9 + ["0.3", ""]),
    "id": st.one_of(
        *[st.sampled_from(["1", "a%20b", "é😀", "x" * 1024])] * 4,
        st.sampled_from(['q"q', "b\\s", "x" * 1025, ""]),
        st.text(max_size=5),
    ),
    "source": st.sampled_from(["/sim/n1"] * 6 + ["", "/a%2fb", "/ü"]),
    "time": TIMES.map(json.loads),
}  # fmt: skip
INTERVALS = st.sampled_from(
    [
        "30",
        "1",
        "86400",
        "86401",
        "0",
        "-1",
        "00030",
        "000030",
        "+5",
        " 5",
        "1.0",
        "1e1",
        "",
        "3600s",
        "9" * 500,
        "é",
        "null",
    ]
)
QUIET = {"time": st.just("2026-09-21T13:33:20.123Z"), "specversion": st.just("1.0"), "source": st.just("/s")}


def envelope(event: EventType, odd: bool) -> dict[str, Text]:
    """The attributes' texts; all good ones but the id if not `odd`."""
    types = st.sampled_from([event.type] * 9 + ["other.v1"]) if odd else st.just(event.type)
    return {**ATTRIBUTES, **({} if odd else QUIET), "type": types}


CONTENT_TYPES = st.sampled_from(
    [
        ("content-type", b"application/cloudevents+json"),
        ("Content-Type", b"Application/CloudEvents+JSON; charset=utf-8"),
    ]
)
ODD_HEADERS: st.SearchStrategy[Header] = st.sampled_from(
    [
        ("content-type", b"application/json"),
        ("content-type", None),
        ("ce_id", b"again"),
        ("ce_id", b"\xff\xfe"),
        ("CE_ID", b"upper"),
        ("ce_time", None),
        ("traceparent", b"\x00\xff"),
        ("ce_", b""),
        ("", b""),
    ]
)


def structured(event: EventType) -> st.SearchStrategy[tuple[bytes, tuple[Header, ...]]]:
    """(value, headers) of a message with its attributes inside."""
    return _messages(event, True)


def binary(event: EventType) -> st.SearchStrategy[tuple[bytes, tuple[Header, ...]]]:
    """(value, headers) of a message with its attributes in the headers."""
    return _messages(event, False)


@st.composite
def _messages(draw: st.DrawFn, event: EventType, inside: bool) -> tuple[bytes, tuple[Header, ...]]:
    data = draw(datas(event))
    attributes = envelope(event, draw(st.sampled_from([False] * 4 + [True])))
    odd = draw(st.sampled_from([""] * 26 + ["cut", "utf8", "bom", "none"]))
    if inside:
        pairs = [(name, values.map(json.dumps)) for name, values in attributes.items()]
        if draw(st.booleans()):
            pairs.append(("interval", st.one_of(INTERVALS.map(json.dumps), NUMBERS, ODD_VALUES)))
        text = draw(objects([*pairs, ("data", st.just(data))], ODD_VALUES))
        headers: list[Header] = [draw(CONTENT_TYPES)]
    else:
        text = data
        headers = [(f"ce_{name}", draw(values).encode()) for name, values in attributes.items()]
        headers += [("ce_interval", text.encode()) for text in draw(st.lists(INTERVALS, max_size=1))]
        headers += draw(st.lists(ODD_HEADERS, max_size=2))
    value = text.encode("utf-8", "surrogatepass")
    if odd == "cut":
        value = value[: draw(st.integers(0, len(value)))]
    elif odd == "utf8":
        value = value.replace(b"c1", b"c\xff")
    elif odd == "bom":
        value = b"\xef\xbb\xbf" + value
    elif odd == "none":
        headers = []
    return value, tuple(headers)
