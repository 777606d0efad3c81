from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.notify.destination import Habits
from pipeline.notify.outbox import OutboxRow
from pipeline.notify.plan import DeliveryPlan, Moment, plan
from pipeline.rules.alert_message import AlertMessage, from_json, to_json

NOW = 1_000_000.0
LOG, STATES, CALLS = (
    Habits(pages=False),
    Habits(keeps_state=True, resends=True),
    Habits(grouped=True, refreshed=False),
)
Change = Callable[..., AlertMessage]


def rows_of(*changes: AlertMessage, attempts: int = 0) -> list[OutboxRow]:
    return [OutboxRow(n, c.changed_at, to_json(c), attempts) for n, c in enumerate(changes, 1)]


def planned(rows: list[OutboxRow], habits: Habits, limit: int = 64, **moment: object) -> DeliveryPlan:
    return plan(rows, habits, Moment(NOW, **{"page_max_age": 600.0, **moment}), limit)


def sent(made: DeliveryPlan) -> list[list[tuple[str, str]]]:
    return [[(s.change.identity, s.change.state) for s in batch] for batch in made.batches]


def test_a_log_is_told_everything_however_old(change: Change) -> None:
    made = planned(rows_of(change("a", at=1.0), change("a", "resolved", at=2.0), change("b", at=NOW)), LOG)
    assert sent(made) == [[("a", "firing")], [("a", "resolved"), ("b", "firing")]]
    assert not made.withheld


def test_a_destination_that_keeps_states_is_told_only_the_newest(change: Change) -> None:
    tighter = {"severity": "critical"}
    first = change("a", at=NOW - 30)
    made = planned(
        rows_of(
            first,
            change("a", at=NOW - 30, changed_at=NOW - 20, labels=tighter, previous_labels=first.labels),
            change("a", "resolved", at=NOW - 10, labels=tighter),
        ),
        STATES,
    )
    assert sent(made) == [[("a", "resolved")]]
    (step,) = made.batches[0]
    assert [row.seq for row in step.rows] == [1, 2, 3]
    assert list(step.change.ending()) == [first.labels]


def test_sources_that_were_silent_while_the_broker_was_away_page_only_if_they_still_are(
    change: Change,
) -> None:
    away = (NOW - 200, NOW - 60)

    def silent(
        identity: str, state: str = "firing", at: float = NOW - 100, decided: float = NOW - 50
    ) -> AlertMessage:
        made = change(identity, state, at=at, changed_at=decided)
        return msgspec.structs.replace(made, alertname="TelemetrySilent")

    for habits in (STATES, CALLS):
        back = [silent("back"), silent("back", "resolved", at=NOW - 5, decided=NOW - 1)]
        made = planned(
            rows_of(*back, silent("dark"), silent("later", at=NOW - 10, decided=NOW - 5)), habits, outage=away
        )
        assert sent(made) == [[("later", "firing")]] and made.held == 1, "who knows yet of `dark`"
        assert len(made.withheld) == 2 and "the broker was away" in made.withheld[0][1]
        still = rows_of(silent("dark", decided=NOW - 121))
        assert sent(planned(still, habits, outage=away)) == [[("dark", "firing")]]
        other = rows_of(change("short", at=NOW - 100))
        assert sent(planned(other, habits, outage=away)) == [[("short", "firing")]]
    assert sent(planned(rows_of(silent("dark")), LOG, outage=away)) == [[("dark", "firing")]]


def test_what_is_over_before_it_could_be_told_pages_nobody(change: Change) -> None:
    for habits in (STATES, CALLS):
        made = planned(rows_of(change("a", at=NOW - 7200), change("a", "resolved", at=NOW - 3600)), habits)
        assert sent(made) == []
        assert [row.seq for row, _ in made.withheld] == [1, 2]


def test_what_still_fires_pages_once_after_a_downtime(change: Change) -> None:
    old = [change("a", at=NOW - 7200), change("a", "resolved", at=NOW - 7000), change("a", at=NOW - 3600)]
    for habits in (STATES, CALLS):
        made = planned(rows_of(*old), habits)
        assert sent(made) == [[("a", "firing")]]
        assert made.batches[0][0].change.fired_at == NOW - 3600


def test_an_old_resolve_ends_what_the_destination_was_told(change: Change) -> None:
    for habits in (STATES, CALLS):
        assert sent(planned(rows_of(change("a", "resolved", at=NOW - 3600)), habits)) == [[("a", "resolved")]]


def test_an_old_resolve_goes_out_when_an_attempt_may_have_told_the_firing(change: Change) -> None:
    rows = rows_of(change("a", at=NOW - 7200), change("a", "resolved", at=NOW - 3600), attempts=1)
    for habits in (STATES, CALLS):
        assert sent(planned(rows, habits)) == [[("a", "resolved")]]


def test_an_old_resolve_goes_out_when_the_backlog_does_not_begin_with_the_firing(change: Change) -> None:
    for kind in ("stale", ""):
        rows = rows_of(change("a", at=NOW - 7200, kind=kind), change("a", "resolved", at=NOW - 3600))
        for habits in (STATES, CALLS):
            assert sent(planned(rows, habits)) == [[("a", "resolved")]]


def test_a_reading_gone_stale_calls_nobody_but_is_kept_where_states_are(change: Change) -> None:
    rows = rows_of(change("a", at=NOW - 60, kind="stale"), change("b", at=NOW))
    assert sent(planned(rows, CALLS)) == [[("b", "firing")]]
    assert [row.seq for row, _ in planned(rows, CALLS).withheld] == [1]
    assert sent(planned(rows, STATES)) == sent(planned(rows, LOG)) == [[("a", "firing"), ("b", "firing")]]


def test_a_webhook_is_told_each_recent_change(change: Change) -> None:
    made = planned(rows_of(change("a", at=NOW - 60), change("a", "resolved", at=NOW - 30)), CALLS)
    assert sent(made) == [[("a", "firing")], [("a", "resolved")]]


def test_a_recent_resolve_of_an_old_firing_that_was_never_told_is_withheld(change: Change) -> None:
    made = planned(rows_of(change("a", at=NOW - 7200), change("a", "resolved", at=NOW - 30)), CALLS)
    assert sent(made) == []


def test_age_does_not_matter_in_a_replay_of_recorded_time(change: Change) -> None:
    rows = rows_of(change("a", at=1.0), change("a", "resolved", at=2.0))
    assert sent(planned(rows, CALLS, page_max_age=None)) == [[("a", "firing")], [("a", "resolved")]]


def test_while_the_pipeline_catches_up_old_firings_wait_but_not_for_ever(change: Change) -> None:
    fresh = change("b", at=NOW - 5)
    for habits in (STATES, CALLS):
        waiting = planned(
            rows_of(change("a", at=NOW - 7200, changed_at=NOW - 10), fresh), habits, catching_up=True
        )
        assert sent(waiting) == [[("b", "firing")]]
        assert waiting.held == 1
        late = planned(
            rows_of(change("a", at=NOW - 7200, changed_at=NOW - 130), fresh), habits, catching_up=True
        )
        assert sent(late) == [[("a", "firing"), ("b", "firing")]]


def test_an_unreadable_row_is_put_aside_and_holds_up_nobody(change: Change) -> None:
    made = planned([OutboxRow(1, NOW, "{"), *rows_of(change("a", at=NOW))[:1]], CALLS)
    assert sent(made) == [[("a", "firing")]]
    assert [row.seq for row, _ in made.unreadable] == [1]


def test_a_request_to_a_webhook_holds_one_alertname_and_contract(change: Change) -> None:
    made = planned(
        rows_of(change("a", at=NOW), change("b", at=NOW, labels={"contract": "other"}), change("c", at=NOW)),
        CALLS,
    )
    assert sent(made) == [[("a", "firing"), ("c", "firing")], [("b", "firing")]]


def test_an_identity_that_was_choked_on_lets_the_others_go_first(change: Change) -> None:
    rows = rows_of(change("a", at=NOW), change("a", "resolved", at=NOW), change("b", at=NOW))
    made = plan(rows, CALLS, Moment(NOW, 600.0), 1, rank=lambda identity: int(identity == "a"))
    assert sent(made) == [[("b", "firing")], [("a", "firing")], [("a", "resolved")]]


EVENTS = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 3000)), max_size=25)


@given(EVENTS, st.sampled_from([LOG, STATES, CALLS]), st.integers(1, 5), st.booleans())
def test_every_row_is_in_one_place_and_no_change_overtakes_another_of_its_identity(
    events: list[tuple[str, bool, int]], habits: Habits, limit: int, catching_up: bool
) -> None:
    changes = [
        AlertMessage(
            identity=i,
            alertname="A",
            labels={"contract": i},
            state=s,
            fired_at=at,
            resolved_at=at,
            changed_at=at,
        )
        for i, fires, age in events
        for s, at in [("firing" if fires else "resolved", NOW - age)]
    ]
    rows = rows_of(*changes)
    made = planned(rows, habits, limit, catching_up=catching_up)
    steps = [step for batch in made.batches for step in batch]
    settled = [row.seq for step in steps for row in step.rows] + [row.seq for row, _ in made.withheld]
    assert len(settled) + made.held == len(rows)
    assert len(set(settled)) == len(settled)
    for identity in "abcd":
        order = [row.seq for step in steps if step.change.identity == identity for row in step.rows]
        assert order == sorted(order)
    for batch in made.batches:
        assert len(batch) <= limit
        assert len({step.change.identity for step in batch}) == len(batch)
    for step in steps:
        assert step.change.state == from_json(step.rows[-1].body).state
