"""Where the board's cards lead, and what can never become a link."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.board.card_links import Elsewhere, grafana_link, parts_of, silence_link
from pipeline.board.page_model import body_of
from pipeline.board.published_rows import look, open_history
from pipeline.board.silences import Routing
from pipeline.catalog import load
from pipeline.errors import SettingsError
from pipeline.ledger.evaluation import write_changes
from pipeline.notify.links import linked
from pipeline.notify.wire_text import wire_labels
from pipeline.rules.alert_message import from_json
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.settings import load_settings
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
OPEN = Elsewhere("https://am.example/am", "https://grafana.example")
MATCHER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def links(contact: str) -> list[tuple[str, str]]:
    return [(part.text, part.href) for part in parts_of(contact) if part.href]


@pytest.mark.parametrize(
    ("contact", "expected"),
    [
        ("Aurora NOC, +49 30 5550 100, contract no. NW-1138", [("+49 30 5550 100", "tel:+49305550100")]),
        ("+49 (0)30 5550-100 or +1 (555) 010.0100", [
            ("+49 (0)30 5550-100", "tel:+49305550100"), ("+1 (555) 010.0100", "tel:+15550100100")]),
        ("noc@aurora.example, then ops+night@aurora.example.", [
            ("noc@aurora.example", "mailto:noc@aurora.example"),
            ("ops+night@aurora.example", "mailto:ops%2Bnight@aurora.example")]),
        ("chat (https://chat.example/noc?x=1).", [("https://chat.example/noc?x=1", "https://chat.example/noc?x=1")]),
        ("since 2026-11-23, +5 people, 030 555 0100, a+12345678", []),
        ("+1234567890123456", []),
        ("javascript:alert(1) data:text/html,x tel:evil mailto:x", []),
        ("https://x/\u202e https://x/é", []),
    ],
)  # fmt: skip
def test_numbers_mail_and_web_addresses_of_a_contact_are_links(
    contact: str, expected: list[tuple[str, str]]
) -> None:
    assert links(contact) == expected


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("+0123456789@:/.javscriptdhmlo\"'<> "))))
def test_whatever_a_contact_says_its_words_stay_and_links_lead_to_a_phone_a_mail_or_the_web(
    text: str,
) -> None:
    parts = list(parts_of(text))
    assert "".join(part.text for part in parts) == text
    for part in parts:
        assert not part.href or re.match(
            r"(tel:\+\d{7,15}$|mailto:[^\s\"'<>?&]+$|https?://[^\s\"'<>]+$)", part.href
        )


def matchers_of(url: str) -> list[str]:
    """The matchers that Alertmanager's form would be filled in with."""
    text = unquote(url.partition("?filter=")[2])
    assert text[0] + text[-1] == "{}"
    return [found[0] for found in MATCHER.finditer(text)]


def test_the_silence_that_a_card_offers_is_of_exactly_that_alert(alertmanager: Any) -> None:
    hostile = {
        "region": 'eu"}, x="\\',
        "site": "ams, 02/é&#?",
        "contract": "c",
        "clause": "k",
        "severity": "critical",
    }
    others = [{**hostile, "site": "ams, 02"}, {k: v for k, v in hostile.items() if k != "region"}]
    told = [wire_labels(labels, "CapacityShortfall") for labels in (hostile, *others)]
    answer = httpx.post(
        f"{alertmanager.url}/api/v2/alerts", json=[{"labels": labels} for labels in told], trust_env=False
    )
    answer.raise_for_status()
    url = silence_link(OPEN, hostile, "CapacityShortfall")
    assert url.startswith(
        "https://am.example/am/#/silences/new?filter=%7Balertname%3D%22CapacityShortfall%22%2C%20"
    )
    assert not set(' "<>{}\\').intersection(url)
    found = httpx.get(
        f"{alertmanager.url}/api/v2/alerts", params=[("filter", m) for m in matchers_of(url)], trust_env=False
    ).json()
    assert [alert["labels"] for alert in found] == [told[0]]
    assert silence_link(Elsewhere(), hostile, "CapacityShortfall") == ""
    assert silence_link(OPEN, {"region": "é" * 5000}, "A") == "", "no server takes an address of any length"


def test_grafanas_page_is_asked_by_the_names_that_the_dashboard_has() -> None:
    since = datetime(2026, 11, 23, 19, 26, 20)
    sql = "SELECT count(*) AS value FROM (\n  SELECT * FROM (SELECT * FROM gpu WHERE true))"
    url = urlsplit(grafana_link(OPEN, "a&b", "k/é", None, since, sql))
    dashboard = json.loads((ROOT / "dashboards" / "clause.json").read_text("utf-8"))
    asked = parse_qs(url.query)
    assert url.path == f"/d/{dashboard['uid']}"
    names = {f"var-{each['name']}" for each in dashboard["templating"]["list"]}
    assert {name for name in asked if name.startswith("var-")} <= names
    assert asked == {
        "var-contract": ["a&b"], "var-clause": ["k/é"], "var-region": ["$__all"], "var-events": ["gpu"],
        "from": [f"{datetime(2026, 11, 23, 18, 56, 20, tzinfo=UTC).timestamp():.0f}000"], "to": ["now"],
    }  # fmt: skip
    assert grafana_link(Elsewhere(), "c", "k", "r", since, None) == ""


def test_the_link_in_an_alert_leads_to_its_card_while_it_is_open_and_after(stage: Any) -> None:
    labels = {
        "alertname": "CapacityShortfall",
        "contract": "c",
        "clause": "k",
        "region": 'é"',
        "severity": "warning",
        "team": "t",
    }
    at = stage.now - 300
    state = AlertState(
        "CapacityShortfall", "c", "k", (("region", 'é"'),), "firing", at, tuple(sorted(labels.items())), "warning", 4.0, "GPUs",
        fired_at=at, observed=3.0,
    )  # fmt: skip
    write_changes(stage.con, [AlertChange("firing", at, state)], ["webhook"], at)
    stage.publish()
    (body,) = stage.con.execute("SELECT body FROM outbox").fetchone()
    url = linked(from_json(body), "https://noc.example").generator_url
    con = open_history(stage.data, load())
    (card,) = body_of(look(con, stage.now), Routing(), stage.now).alerts
    assert url == f"https://noc.example/#{card.id}"
    over = state.__class__.from_json(
        json.dumps({**json.loads(state.to_json()), "phase": "resolved", "resolved_at": at + 60})
    )
    write_changes(stage.con, [AlertChange("resolved", at + 60, over)], [], at + 60)
    stage.publish()
    (line,) = body_of(look(con, stage.now), Routing(), stage.now).over
    assert url == f"https://noc.example/#{line.id}"
    con.close()


def test_what_ended_within_a_day_has_one_line_that_says_how_often(stage: Any) -> None:
    for hours, region in ((1, "often"), (3, "often"), (23, "once"), (25, "before")):
        ended = stage.now - hours * 3600
        stage.alert("resolved", region=region, ago=hours * 3600, fired_at=ended - 600, resolved_at=ended)
        stage.alert("inactive", region=f"{region}-never", ago=hours * 3600, fired_at=None)
    stage.stands("ok")
    stage.publish()
    con = open_history(stage.data, load())
    found = body_of(look(con, stage.now), Routing(), stage.now).over
    assert [(one.about, one.times, one.lasted) for one in found] == [
        ("often", 2, "10m00s"), ("once", 1, "10m00s"),
    ]  # fmt: skip
    con.close()


def test_a_card_calls_writes_silences_and_opens_grafana(stage: Any, open_board: Callable[..., Any]) -> None:
    contact = "Aurora desk, +49 30 555 0100, noc@aurora.example, javascript:alert(1), <b>"
    stage.alert(annotations={"contact": contact})
    stage.publish()
    board = open_board(
        stage.data,
        "--alertmanager",
        "http://me:secret@127.0.0.1:1/am",
        "--grafana-url",
        "https://grafana.example/",
    )
    text = httpx.get(board.url, trust_env=False, timeout=PATIENCE).text
    for words in (
        '<a href="tel:+49305550100" rel="noreferrer noopener">+49 30 555 0100</a>',
        '<a href="mailto:noc@aurora.example" rel="noreferrer noopener">noc@aurora.example</a>, javascript:alert(1), &lt;b&gt;',
        '<a href="http://127.0.0.1:1/am/#/silences/new?filter=%7Balertname%3D%22CapacityShortfall%22%2C%20clause',
        '<a href="https://grafana.example/d/gigawatch-clause?var-contract=northwind-aurora&amp;var-clause=eu-fleet',
    ):  # fmt: skip
        assert words in text, words
    assert "secret" not in text
    seen = open_board(
        stage.data,
        "--alertmanager",
        "http://127.0.0.1:1",
        "--alertmanager-external-url",
        "https://am.example",
    )
    text = httpx.get(seen.url, trust_env=False, timeout=PATIENCE).text
    assert 'href="https://am.example/#/silences/new?' in text and "d/gigawatch-clause" not in text


@pytest.mark.parametrize("name", ["public_url", "grafana_url", "alertmanager_external_url"])
def test_addresses_that_others_open_are_checked_before_anything_runs(name: str) -> None:
    assert getattr(load_settings(**{name: "https://gw.example/a/"}), name) == "https://gw.example/a"
    for bad in (
        "gw.example",
        "javascript:alert(1)",
        "https://",
        "https://gw.example/?a=b",
        "https://gw.example/#x",
        "https://a b",
    ):
        with pytest.raises(SettingsError) as error:
            load_settings(**{name: bad})
        assert f"{name}: expected an address for a browser, such as https://gigawatch.example" in str(
            error.value
        )
        assert repr(bad) in str(error.value)
    with pytest.raises(SettingsError) as error:
        load_settings(**{name: "https://me:secret@gw.example"})
    assert "secret" not in str(error.value) and "without user" in str(error.value)
