"""From rows to what the page says: what is loud, what is cut, what is drawn; without an engine."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.board.access import credentials, host_of
from pipeline.board.charts import POINTS, readings_chart, spend_chart
from pipeline.board.metrics import GrowingTotals
from pipeline.board.page_model import Page, body_of
from pipeline.board.page_model import page_of as page_with
from pipeline.board.pages import Pages, counts, headline, title
from pipeline.board.problems import BEHIND, STANDS_STILL, Life, problems
from pipeline.board.published_rows import Published
from pipeline.board.silences import AlertmanagerSilence, Muted, Routing, muted
from pipeline.board.text import amount, beyond, lines, link, short
from pipeline.notify.wire_text import fingerprint
from pipeline.serve.status_report import QUIET_AFTER

NOW = 1_796_000_000.0


def written(age: float = 1.0, behind: float = 2.0, **values: Any) -> dict[str, Any]:
    """A status of `age` seconds, evaluated to `behind` seconds before now."""
    at = datetime.fromtimestamp(NOW - age, UTC).isoformat()
    mark = datetime.fromtimestamp(NOW - behind, UTC).isoformat()
    return {
        "state": "running", "written_at": at, "watermarks": {"telemetry.gpu": mark}, "contract_error": None,
        "contracts": [{"id": "c", "version": "1"}], "undelivered": [], "rate_events_per_s": 5.0, "lag": {},
        "by_topic": {}, "freshness_s": {"p50": 1.0, "p99": 2.0}, "decision_delay_s": {"p50": None, "p99": None},
        **values,
    }  # fmt: skip


def life(pid: int | None = 7, **values: Any) -> Life:
    published = datetime.fromtimestamp(NOW - 5, UTC).replace(tzinfo=None)
    return Life(written(**values), pid, published)


def alert(**values: Any) -> dict[str, Any]:
    labels = {"alertname": "Novel", "clause": "k", "contract": "c", "region": "r", "severity": "critical"}
    at = datetime(2026, 11, 29, 23)
    return {
        "severity": "critical", "urgency": 0, "state": "firing", "alertname": "Novel", "contract": "c", "clause": "k",
        "labels": json.dumps(labels), "about": "r", "active_at": at, "fired_at": at, "observed": 3.0, "bound": 4.0,
        "unit": "widgets", "window": None, "summary": "s", "text": "t", "at_risk": None, "risk_per_hour": None,
        "stale": False, "runbook": None, "contact": None, "sql": None, "now": None, "missing": None, "worst": None,
        "meters": None, "blinds": None, "opens": None, "rows_sql": None, **values,
    }  # fmt: skip


def stands(**values: Any) -> dict[str, Any]:
    at = datetime(2026, 11, 29, 23)
    return {
        "contract": "c", "clause": "k", "alertname": "Novel", "by_values": '{"region": "r", "sku": ""}', "state": "ok",
        "observed": 3.0, "bound": 4.0, "unit": "widgets", "since": at, "time": at, "window": None, **values,
    }  # fmt: skip


def page_of(data: str, of: Life, published: Published, routing: Routing, now: float) -> Page:
    return page_with(data, of, body_of(published, routing, now), routing, now)


def titles(of: Life, routing: Routing | None = None) -> list[tuple[str, str]]:
    return [(p.level, p.title) for p in problems(of, routing or Routing(), NOW)]


def test_a_pipeline_that_stalls_and_a_clock_that_is_wrong_are_said_first() -> None:
    stalled = "the pipeline has been stalled since 2026-11-29 23:30:00 UTC: the broker does not answer"
    of = life(stalled=stalled, clocks=["our own clock is 1 d ahead"])
    assert titles(of)[:2] == [("bad", f"T{stalled[1:]}"), ("bad", "A clock is wrong")]


def test_a_pipeline_that_is_well_gives_no_cause_for_doubt() -> None:
    assert titles(life()) == []


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (Life(None, None), "no pipeline has ever run here"),
        (Life(None, 7), "is starting"),
        (life(pid=None, state="stopped"), "has been stopped since 30 Nov 00:53:19 UTC, in good order"),
        (life(pid=None), "has been dead since 30 Nov 00:53:19 UTC: it ended without a word"),
        (life(pid=None, state="failed", error="disk full"), "has failed, at 30 Nov 00:53:19 UTC: disk full"),
        (
            life(age=QUIET_AFTER + 1),
            "has said nothing since 30 Nov 00:52:49 UTC: it runs, and hangs or is suspended",
        ),
        (replace(life(behind=70), still=STANDS_STILL + 1), "has stood still since 30 Nov 00:52:19 UTC"),
        (life(watermarks={}), "nothing has been evaluated"),
        (replace(life(), reading="broken file"), "cannot be read"),
        (
            replace(life(), published_at=datetime(2026, 11, 29, 23, 30)),
            "Nothing has been published since 29 Nov 23:30:00 UTC",
        ),
    ],
)
def test_dead_or_old_data_is_said_loudly(of: Life, says: str) -> None:
    found = titles(of)
    assert found[0][0] == "bad"
    assert says in found[0][1]


def test_a_backlog_or_a_replay_is_behind_the_clock_and_sound() -> None:
    assert titles(life(behind=BEHIND + 60)) == [("warn", "What is below is 6m00s behind the clock")]


def test_what_is_amiss_beside_the_data_is_a_note_and_the_bad_comes_first() -> None:
    waits = [{"destination": "webhook", "count": 3, "last_error": "HTTP 500", "refused": 0}]
    of = life(pid=None, state="stopped", contract_error="c.yaml:1: wrong", undelivered=waits, contracts=[])
    found = titles(of, Routing("http://am", "no answer"))
    assert [level for level, _ in found] == ["bad", "warn", "warn", "warn", "warn"]
    assert "3 alert changes could not be delivered to webhook" in [title for _, title in found]


def test_a_clause_that_matches_nothing_and_a_missing_topic_are_notes() -> None:
    words = (
        "clause floor of c matches nothing that was ever seen: region is 'boralis'; did you mean 'borealis'?"
    )
    of = life(unmatched=[words], absent_topics=["telemetry.energy"])
    assert [(p.level, p.title, p.text) for p in problems(of, Routing(), NOW)] == [
        ("warn", "A clause matches nothing that was ever seen", f"C{words[1:]}"),
        ("warn", "The topic telemetry.energy is missing",
         "It is looked for again and again; gigawatch topics create makes it, unless it is a source's."),
    ]  # fmt: skip


def test_a_page_over_dead_data_never_says_that_all_is_well() -> None:
    calm = page_of("d", life(), Published(), Routing(), NOW)
    assert headline(calm) == "Nothing fires"
    dead = page_of("d", life(pid=None), Published(), Routing(), NOW)
    assert headline(dead).startswith("The pipeline has been dead since") and title(dead).startswith("STALE")
    assert counts(dead) == "No alert fired, as of then"
    text = Pages().render(dead).body.decode()
    assert f'<h1 class="dead">{headline(dead)}</h1>' in text
    assert text.index("Do not trust what is below") < text.index('id="alerts"')
    assert '<main class="past">' in text and "<main>" in Pages().render(calm).body.decode()
    assert "not known now" in text and "events/s" not in text, "the Watchdog and the rate are of then"


def test_lines_end_where_the_data_ends() -> None:
    rows = [alert(by_values="{}")]
    key = ("c", "k", "Novel", '{"region": "r", "sku": ""}')
    series = {key: [(NOW - 7200 + 60 * n, 3.0, 4.0) for n in range(60)]}
    drawn = []
    for ago in (0.0, 3600.0):
        given = Published(alerts=rows, standing=[stands()], series=series, unknown_for=ago)
        (card,) = page_of("d", life(), given, Routing(), NOW).body.alerts
        assert card.chart
        drawn.append((card.chart.observed.rpartition("L")[2].partition(",")[0], card.chart.ends[11:16]))
    assert drawn == [("600.0", "23:52"), ("297.5", "00:52")]


def test_a_card_shows_the_present_value_beside_the_one_at_firing_and_what_is_known_besides() -> None:
    known = {
        "missing": "8 silent since 09:43 UTC",
        "meters": "the meters still show 0.195 MW",
        "blinds": "c/floor",
    }
    published = Published(
        alerts=[alert(observed=3.0, now=1.0, **known), alert(observed=3.0, now=3.0, clause="other")]
    )
    fallen, steady = page_of("d", life(), published, Routing(), NOW).body.alerts
    assert (fallen.observed, fallen.at_firing, fallen.beyond) == ("1 widgets", "3 widgets", "3 widgets below")
    assert [what for what, _ in fallen.beside] == ["Not delivered", "Meters", "Blinds"]
    assert (steady.observed, steady.at_firing, steady.beside) == ("3 widgets", "", ())
    html = Pages().render(page_of("d", life(), published, Routing(), NOW)).body.decode()
    assert "3 widgets when it fired" in html and "8 silent since 09:43 UTC" in html and "c/floor" in html


def test_a_kind_of_clause_that_nobody_has_heard_of_appears_by_its_own_name() -> None:
    rows = [stands(), stands(by_values='{"moon": "io"}', state="unknown"), stands(clause="z", state="breach")]
    page = page_of("d", life(), Published(alerts=[alert()], standing=rows), Routing(), NOW)
    (contract,) = page.body.contracts
    assert [(s.mood, s.clause, s.about) for s in contract.amiss] == [
        ("firing", "k", "r"), ("pending", "z", "r"), ("unknown", "k", "io"),
    ]  # fmt: skip
    (card,) = page.body.alerts
    assert (card.alertname, card.observed, card.bound, card.beyond) == (
        "Novel", "3 widgets", "4 widgets", "1 widgets below",
    )  # fmt: skip


def test_the_watchdog_is_no_alert_that_anybody_has_to_read() -> None:
    page = page_of("d", life(), Published(alerts=[alert(alertname="Watchdog")]), Routing(), NOW)
    assert (page.body.alerts, page.body.firing, page.body.watchdog) == ((), 0, True)


def test_an_alert_keeps_its_name_in_the_page_when_its_severity_changes() -> None:
    def ids(severity: str) -> list[str]:
        labels = {"region": "r", "severity": severity}
        rows = [alert(severity=severity, labels=json.dumps(labels))]
        return [card.id for card in page_of("d", life(), Published(alerts=rows), Routing(), NOW).body.alerts]

    assert ids("critical") == ids("warning")


def test_what_alertmanager_says_of_an_alert_is_found_by_its_fingerprint() -> None:
    row = alert()
    labels = json.loads(row["labels"])
    found = muted(
        [{"fingerprint": fingerprint(labels), "status": {"silencedBy": ["one"], "inhibitedBy": []}}],
        [{"id": "one", "endsAt": "2026-12-01T08:00:00.123Z", "createdBy": "ada", "comment": "known"}],
    )
    page = page_of("d", life(), Published(alerts=[row]), Routing("http://am", "", found), NOW)
    (card,) = page.body.muted
    assert card.muted and card.muted.silences == (
        AlertmanagerSilence("2026-12-01T08:00:00Z", "ada", "known"),
    )
    assert not card.unheard
    (other,) = page_of("d", life(), Published(alerts=[row]), Routing("http://am"), NOW).body.alerts
    assert other.muted is None and other.unheard
    (alone,) = page_of("d", life(), Published(alerts=[row]), Routing("http://am", "down"), NOW).body.alerts
    assert not alone.unheard, "nobody knows"


@given(st.text())
def test_whatever_text_comes_it_is_short_and_steers_nothing(text: str) -> None:
    shown = short(text, 50)
    assert len(shown) <= 50
    assert not any(ord(c) < 32 or c in "\u202e\u2066\u2069\u200f\x7f\u2028" for c in shown)


def test_only_addresses_of_the_web_become_links() -> None:
    assert link("https://runbooks.example/a?b=c#d") == "https://runbooks.example/a?b=c#d"
    for bad in ("javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "//evil", "https://a b", "ftp://x",
                "https://x/\u202e", "https://" + "x" * 5000, " https://x", None, ""):  # fmt: skip
        assert link(bad) == "", bad


def test_numbers_are_said_with_their_units() -> None:
    assert [amount(1208.0, "GPUs"), amount(252, "s"), amount(None, "MW"), amount(9_738_268.4, "USD")] == [
        "1,208 GPUs", "4m12s", "-", "9.74M USD",
    ]  # fmt: skip
    assert (beyond(3, 5, "MW"), beyond(5, 3, "MW"), beyond(5, 5, "MW"), beyond(None, 5, "MW")) == (
        "2 MW below", "2 MW above", "", "",
    )  # fmt: skip
    assert len(lines("x" * 100_000)) <= 8192


def test_a_chart_has_gaps_where_nothing_was_read_and_steps_where_the_bound_changes() -> None:
    points = [(0.0, 1.0, 5.0), (60.0, None, 5.0), (120.0, 3.0, 6.0)]
    chart = readings_chart(points, "jobs")
    assert chart is not None
    assert chart.observed.count("M") == 2
    assert chart.bound.count("M") == 1 and chart.bound.count("L") == 3
    assert chart.figures == "Last 3 jobs; bound 6 jobs; least 1 jobs at 00:00, most 3 jobs at 00:02 UTC"
    drawn = json.loads(chart.data)
    assert drawn["rows"][1] == [60_000, None, 5.0]
    assert readings_chart([(0.0, 1.0, 5.0)], "jobs") is None


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=2000))
def test_a_chart_of_any_numbers_stays_within_its_box_and_its_size(values: list[float]) -> None:
    chart = readings_chart([(60.0 * n, v, None) for n, v in enumerate(values)], "x")
    assert chart is not None
    pairs = [place.lstrip("ML").split(",") for place in chart.observed.split()]
    assert len(pairs) <= POINTS + 1
    assert all(-0.1 <= float(x) <= 600.1 and -0.1 <= float(y) <= 120.1 for x, y in pairs)


def test_a_burn_down_goes_on_dotted_to_what_it_is_on_course_to() -> None:
    chart = spend_chart([(0.0, 10.0), (86_400.0, 20.0)], 0.0, 10 * 86_400.0, 100.0, 90.0, "EUR")
    assert chart is not None and chart.forecast and chart.bound
    drawn = json.loads(chart.data)
    assert drawn["rows"][-1] == [864_000_000, None, 100.0, 90.0]
    over = spend_chart([(0.0, 10.0)], 0.0, 86_400.0, None, None, "EUR")
    assert over is not None and (over.forecast, over.bound) == ("", "")


def test_counts_for_prometheus_never_fall_when_old_rows_are_removed() -> None:
    tally = GrowingTotals()
    for n in (100, 120, 70, 75):
        tally.note([{"topic": "t", "fate": "in", "reason": "", "n": n}])
    assert tally.total[("t", "in", "")] == 125


def test_names_and_hosts_are_read_from_their_headers() -> None:
    assert credentials("Basic YWxpY2U6czpl") == ("alice", "s:e")
    for bad in ("", "Bearer x", "Basic ***", "Basic YWxpY2U=", "Basic /////w=="):
        assert credentials(bad) is None, bad
    assert [host_of(h) for h in ("localhost:8420", "[::1]:1", "evil.example", "", "[", "127.0.0.1.:80")] == [
        "localhost", "::1", "evil.example", "", "", "127.0.0.1",
    ]  # fmt: skip


def test_a_window_is_open_from_its_first_instant() -> None:
    at = datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None)
    rows = [
        {
            "contract": "c",
            "window": name,
            "text": "",
            "starts": at + timedelta(seconds=d),
            "ends": at + timedelta(hours=1),
        }
        for name, d in (("now", 0), ("soon", 1))
    ]
    page = page_of("d", life(), Published(windows=rows), Routing(), NOW)
    assert [(w.name, w.is_open) for w in page.body.windows] == [("now", True), ("soon", False)]


def many(n: int, **values: Any) -> list[dict[str, Any]]:
    return [alert(labels=json.dumps({"region": str(k)}), about=str(k), **values) for k in range(n)]


def test_many_alerts_are_one_quick_page() -> None:
    page = page_of(
        "d",
        life(),
        Published(alerts=many(500, sql="SELECT count(*) FROM gpu\n" * 80), standing=[stands()] * 500),
        Routing(),
        time.time(),
    )
    assert (len(page.body.alerts), page.body.unshown, page.body.firing) == (200, 300, 500)
    whole = Pages().render(page)
    assert b"And 300 more" in whole.body
    assert len(whole.packed) < 60_000, "for a phone, with the SQL of 200 alerts"


def test_many_alerts_of_a_clause_share_a_line_that_names_the_worst_and_the_oldest() -> None:
    rows = [*many(9), *many(3, clause="other", severity="ticket"), *many(2, clause="few", severity="ticket")]
    rows[4] |= {"observed": 1.0, "fired_at": datetime(2026, 11, 29, 21)}
    groups = page_of("d", life(), Published(alerts=rows), Routing(), NOW).body.groups
    assert [(len(g.cards), g.folded) for g in groups] == [(9, True), (3, True), (1, False), (1, False)]
    assert (groups[0].worst.about, groups[0].since) == ("4", "2026-11-29T21:00:00Z")
    calm = page_of("d", life(), Published(alerts=rows[:12]), Routing(), NOW).body.groups
    assert [g.folded for g in calm] == [False] * 12, "a dozen have a line each"


def test_what_is_silenced_comes_last_and_is_not_counted() -> None:
    rows = [alert(), alert(clause="loud", labels='{"clause": "loud"}', severity="warning")]
    quiet = {fingerprint(json.loads(rows[0]["labels"])): Muted((AlertmanagerSilence("", "ada", "known"),))}
    page = page_of("d", life(), Published(alerts=rows), Routing("http://am", "", quiet), NOW)
    assert ([c.clause for c in page.body.alerts], [c.clause for c in page.body.muted]) == (["loud"], ["k"])
    assert headline(page) == "1 alert firing"
    text = Pages().render(page).body.decode()
    assert text.index('class="alert warning"') < text.index('id="muted"') < text.index('id="contracts"')
    assert text.count("data-firing=") == 1, "what is silenced is not said aloud"
    alone = page_of("d", life(), Published(alerts=rows[:1]), Routing("http://am", "", quiet), NOW)
    assert headline(alone) == "Nothing fires, 1 silenced"
    away = page_of("d", life(), Published(alerts=rows), Routing("http://am", "no answer", {}), NOW)
    assert (len(away.body.alerts), away.body.firing) == (2, 2), "nobody knows, so all are loud"


def over(region: str, ago: float = 3600.0, **values: Any) -> dict[str, Any]:
    ended = datetime.fromtimestamp(NOW - ago, UTC).replace(tzinfo=None)
    labels = json.dumps({"clause": "k", "contract": "c", "region": region, "severity": "warning"})
    return {
        "severity": "warning", "alertname": "Novel", "contract": "c", "clause": "k", "labels": labels, "about": region,
        "fired_at": ended - timedelta(minutes=40), "resolved_at": ended, "times": 1, **values,
    }  # fmt: skip


def test_what_is_over_is_below_unless_it_fires_again() -> None:
    rows = [over("r"), over("s", times=3), over("t", alertname="Watchdog")]
    page = page_of("d", life(), Published(alerts=[alert()], over=rows), Routing(), NOW)
    (line,) = page.body.over
    assert (line.about, line.lasted, line.times) == ("s", "40m00s", 3)
    text = Pages().render(page).body.decode()
    assert text.index('id="alerts"') < text.index(f'<li id="{line.id}"') < text.index('id="contracts"')
    assert "lasted 40m00s, 3 times" in text
