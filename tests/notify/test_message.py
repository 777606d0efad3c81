from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.notify.links import linked
from pipeline.notify.message import annotate, fold
from pipeline.rules.alert_message import AlertMessage, UnreadableChange, from_json, to_json

LABELS = st.dictionaries(
    st.sampled_from(["severity", "route", "region"]), st.sampled_from(["a", "b"]), min_size=1, max_size=3
)
CHANGES = st.builds(
    AlertMessage,
    identity=st.just("one"),
    alertname=st.just("CapacityShortfall"),
    labels=LABELS,
    state=st.sampled_from(["firing", "resolved"]),
    annotations=st.dictionaries(st.text(), st.text(), max_size=2),
    active_at=st.none() | st.floats(0, 4e9),
    fired_at=st.none() | st.integers(0, 4 * 10**9).map(float),
    resolved_at=st.none() | st.integers(0, 4 * 10**9).map(float),
    previous_labels=st.none() | LABELS,
    changed_at=st.floats(0, 4e9),
)


@given(CHANGES)
def test_reading_undoes_writing(change: AlertMessage) -> None:
    assert from_json(to_json(change)) == change


def test_integers_and_unknown_keys_from_the_ledger_are_read() -> None:
    body = {
        "identity": "i",
        "alertname": "A",
        "labels": {"a": "b"},
        "state": "firing",
        "changed_at": 170,
        "unit": "MW",
    }
    assert from_json(json.dumps(body)).changed_at == 170.0


@pytest.mark.parametrize("state", ["pending", "inactive", ""])
def test_a_pending_alert_is_nobodys_business(state: str) -> None:
    body = {"identity": "i", "alertname": "A", "labels": {}, "state": state, "changed_at": 1}
    with pytest.raises(UnreadableChange, match="state"):
        from_json(json.dumps(body))


@pytest.mark.parametrize("body", ["", "null", "[1]", "{}", '{"identity": 1', "\ud800", '{"identity": "i"}'])
def test_what_is_no_change_is_refused_by_name(body: str) -> None:
    with pytest.raises(UnreadableChange, match="outbox body is not an alert change"):
        from_json(body)


def active_after(changes: list[AlertMessage]) -> set[tuple[tuple[str, str], ...]]:
    """The label sets active after an engine whose identity is the label set was told of the changes."""
    active: set[tuple[tuple[str, str], ...]] = set()
    for change in changes:
        active -= {tuple(sorted(labels.items())) for labels in change.ending()}
        own = tuple(sorted(change.labels.items()))
        active = active | {own} if change.firing else active - {own}
    return active


@given(st.lists(CHANGES, min_size=1, max_size=6), st.integers(0, 5))
def test_a_fold_leaves_the_same_label_sets_active_as_telling_the_changes_one_by_one(
    changes: list[AlertMessage], cut: int
) -> None:
    """As far as they are whole: what a label change ends is what was there before it."""
    whole = [changes[0]]
    for change in changes[1:]:
        before = whole[-1].labels if whole[-1].firing else None
        whole.append(
            AlertMessage(
                **{**{f: getattr(change, f) for f in change.__struct_fields__}, "previous_labels": before}
            )
        )
    told, rest = whole[:cut], whole[cut:]
    folded = [*told, fold(rest)] if rest else told
    assert active_after(folded) == active_after(whole)


def test_a_remark_of_the_pipeline_never_replaces_an_annotation_of_the_clause(change) -> None:
    noted = annotate(change(annotations={"text": "the floor"}), {"text": "x", "kafka_outage": "down"})
    assert noted.annotations == {"text": "the floor", "kafka_outage": "down"}


def test_the_age_of_a_change_counts_from_when_it_happened_not_from_when_it_was_replayed(change) -> None:
    assert change(at=1000.0, changed_at=9000.0).happened_at == 1000.0
    assert change(state="resolved", at=1000.0, changed_at=9000.0).happened_at == 1000.0
    assert change(at=1000.0, changed_at=9000.0, previous_labels={"a": "b"}).happened_at == 9000.0


def test_the_watchdog_leads_to_the_board_as_a_whole() -> None:
    watchdog = AlertMessage(
        identity="w", alertname="Watchdog", labels={"severity": "info"}, state="firing", changed_at=1.0
    )
    assert linked(watchdog, "https://noc.example").generator_url == "https://noc.example/"
    assert linked(watchdog, "") is watchdog
