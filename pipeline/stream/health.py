"""The alerts that go by the wall clock: Watchdog, and PipelineStalled for each topic.

A topic is well while the broker answers and either nothing waits or what waits is taken in.  When it has not
been well for `stalled_after` seconds, PipelineStalled goes out; when records wait, the broker answers and
nothing moves for `give_up_after` seconds, the process ends so that its supervisor restarts it: a consumer
that slowly died does not come back by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.contract.model import PipelineAlerts
from pipeline.errors import Stalled
from pipeline.rollup.delta import Place
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.pipeline import stalled, watchdog
from pipeline.stream.watermark import ANSWER_HOLDS, Watermarks

NO_ANSWER = "the broker does not answer"
NO_PROGRESS = "records wait, but none is taken in"


class Health:
    """Watches `topics`; `states` are the live alerts of the ledger at the start."""

    def __init__(
        self,
        topics: Sequence[str],
        watermarks: Watermarks,
        states: Mapping[str, AlertState],
        *,
        stalled_after: float,
        give_up_after: float,
        now: float,
    ) -> None:
        self._watermarks = watermarks
        self._stalled_after, self._give_up_after = stalled_after, give_up_after
        self._well_at = dict.fromkeys(topics, now)
        self._lag: dict[Place, int] = {}
        self._moved: dict[str, int] = dict.fromkeys(topics, -1)
        self._states = {dict(s.by)["topic"]: s for s in states.values() if s.alertname == "PipelineStalled"}

    def begin(
        self, alerts: PipelineAlerts, now: float
    ) -> tuple[dict[str, AlertState | None], list[AlertChange]]:
        """The Watchdog's state and firing change."""
        state = watchdog(alerts.watchdog, int(now))
        return {state.identity: state}, [AlertChange("firing", int(now), state)]

    def look(
        self, alerts: PipelineAlerts, positions: Mapping[Place, int], now: float
    ) -> tuple[dict[str, AlertState | None], list[AlertChange]]:
        """What changed about PipelineStalled; raises Stalled when the process should end."""
        states: dict[str, AlertState | None] = {}
        changes: list[AlertChange] = []
        lag = self._watermarks.lag()
        answers = now - self._watermarks.last_answer() <= ANSWER_HOLDS + 2.0
        for topic in self._well_at:
            waiting = sum(n for (name, _), n in lag.items() if name == topic)
            moved = sum(offset for (name, _), offset in positions.items() if name == topic)
            if answers and (waiting == 0 or moved != self._moved[topic]):
                self._well_at[topic] = now
            self._moved[topic] = moved
            since = now - self._well_at[topic]
            if answers and since > self._give_up_after:
                raise _give_up(topic, waiting, since)
            before = self._states.get(topic)
            reason = NO_PROGRESS if answers else NO_ANSWER
            after, change = stalled(
                before, alerts.pipeline_stalled, topic, since, self._stalled_after, reason, int(now)
            )
            if change is not None:
                changes.append(change)
                states[change.state.identity] = after
            if after is None:
                self._states.pop(topic, None)
            else:
                self._states[topic] = after
        return states, changes


def _give_up(topic: str, waiting: int, since: float) -> Stalled:
    return Stalled(
        f"{topic}: {waiting:,} records wait and the broker answers, but nothing was taken in for {since:.0f} s; the "
        "process ends so that its supervisor restarts it. Nothing is lost; if it recurs, see the log for the batch "
        "that hangs"
    )
