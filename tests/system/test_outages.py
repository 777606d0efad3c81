"""The worker or the broker stands still, goes away and comes back: nobody is called, and no row becomes late."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from pipeline.stream.topic_admin import DEADLETTER, TopicSpec, admin, create_topics, describe_topics
from tests.patience import PATIENCE

LATE = "SELECT count(*) FROM {} WHERE known_from > time_bucket(INTERVAL 10 SECOND, time) + INTERVAL 10 SECOND"
"""A row that comes within the allowed lateness is known from the end of its window on; a late one is not."""
FIRED = (
    "SELECT DISTINCT alertname FROM alerts WHERE fired_at <= make_timestamp({}) "
    "AND alertname NOT IN ('Watchdog', 'PipelineStalled')"
)
"""Until the feed's end: afterwards it is silent, and on a busy machine that is listened to for longer than a minute."""


def _nothing_wrong(worker: Any, sent: Any) -> None:
    """All that was sent is there, once, and was never late; nothing fired; the log read at one go says the same."""
    for topic, samples in sent.samples.items():
        view = topic.partition(".")[2]
        assert worker.one(f"SELECT count(*) FROM {view}") == samples, topic
        if view not in ("billing", "deliveries"):
            assert worker.one(LATE.format(view)) == 0, topic
    assert worker.ask(FIRED.format(sent.event_time_ms * 1000)) == []


def _same_in_a_replay(worker: Any, worker_factory: Any, contract: Any, sent: Any) -> None:
    """A fresh pipeline over the same log comes to the same rows, roll-ups and alerts, bit for bit."""
    again = (
        worker_factory(worker.bootstrap, contract=contract)
        .start()
        .await_begun()
        .await_taken_in()
        .await_published()
    )
    assert again.stop() == 0, again.said()
    # Until the feed's end: afterwards it is silent, and how long that is listened to differs.
    telling = (
        "SELECT * FROM alerts WHERE alertname NOT IN ('Watchdog', 'PipelineStalled') "
        f"AND time <= make_timestamp({sent.event_time_ms * 1000}) ORDER BY ALL"
    )
    for sql in (
        *(f"SELECT * FROM {view} ORDER BY ALL" for view in ("gpu", "gpu_10s", "queue_1m", "energy_1h")),
        telling,
    ):
        assert again.ask(sql) == worker.ask(sql), sql


@pytest.mark.slow
def test_a_worker_that_stood_still_for_a_quarter_of_a_minute_catches_up_and_calls_nobody(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, live: Any
) -> None:
    telemetry_topics()
    feed = live(kafka.bootstrap, 35)
    worker = worker_factory(kafka.bootstrap, contract=feed.contract).start().await_begun()
    time.sleep(8)
    worker.pause()
    time.sleep(15)
    worker.resume()
    sent = feed.writing.result()
    worker.await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    _nothing_wrong(worker, sent)
    assert worker.one("SELECT count(*) FROM alerts WHERE alertname = 'PipelineStalled'") == 0
    _same_in_a_replay(worker, worker_factory, feed.contract, sent)


@pytest.mark.slow
def test_a_broker_that_was_restarted_is_read_on_and_nobody_is_called(
    fresh_kafka: Any, telemetry_topics: Any, worker_factory: Any, live: Any
) -> None:
    telemetry_topics(bootstrap=fresh_kafka.bootstrap)
    # Clients wait between two attempts, and come back later than we do: that is no silence.
    feed = live(fresh_kafka.bootstrap, 50, retry_backoff_ms=6_000)
    worker = worker_factory(fresh_kafka.bootstrap, contract=feed.contract).start().await_begun()
    time.sleep(8)
    fresh_kafka.stop()
    time.sleep(12)
    fresh_kafka.start()
    sent = feed.writing.result()
    worker.await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    _nothing_wrong(worker, sent)
    _same_in_a_replay(worker, worker_factory, feed.contract, sent)


@pytest.mark.slow
def test_a_broker_that_stood_still_for_a_minute_is_reported_as_such_and_as_nothing_else(
    fresh_kafka: Any,
    telemetry_topics: Any,
    worker_factory: Any,
    live: Any,
    alertmanager: Any,
    eventually: Any,
) -> None:
    telemetry_topics(bootstrap=fresh_kafka.bootstrap)
    feed = live(fresh_kafka.bootstrap, 85)
    worker = worker_factory(
        fresh_kafka.bootstrap, contract=feed.contract, alertmanager=alertmanager.url, stalled_after=10
    ).start().await_begun()  # fmt: skip
    eventually("Watchdog at Alertmanager", lambda: _active(alertmanager) == {"Watchdog"})
    time.sleep(5)
    fresh_kafka.pause()
    paused = time.monotonic()
    try:
        eventually("PipelineStalled at Alertmanager", lambda: "PipelineStalled" in _active(alertmanager))
        assert _active(alertmanager) == {"PipelineStalled", "Watchdog"}
        time.sleep(max(0.0, paused + 60 - time.monotonic()))
    finally:
        fresh_kafka.resume()
    eventually("it is over", lambda: _active(alertmanager) == {"Watchdog"})
    sent = feed.writing.result()
    worker.await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    _nothing_wrong(worker, sent)
    told = worker.ask("SELECT state FROM alerts WHERE alertname = 'PipelineStalled' ORDER BY time")
    assert told == [("firing",), ("resolved",)], "one outage is one page, whatever the number of topics"
    _same_in_a_replay(worker, worker_factory, feed.contract, sent)


def _active(alertmanager: Any) -> set[str]:
    answer = httpx.get(
        f"{alertmanager.url}/api/v2/alerts", params={"active": "true"}, trust_env=False, timeout=PATIENCE
    )
    return {alert["labels"]["alertname"] for alert in answer.raise_for_status().json()}


@pytest.mark.parametrize("outage", ["pause", "kill"])
def test_a_stop_during_an_outage_ends_by_itself_and_what_was_taken_in_is_readable(
    fresh_kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any, outage: str
) -> None:
    telemetry_topics(bootstrap=fresh_kafka.bootstrap)
    now = time.time() - 30
    send(fresh_kafka.bootstrap, "telemetry.gpu", [gpu_event(i, now + i / 10) for i in range(50)])
    worker = worker_factory(fresh_kafka.bootstrap, stalled_after=3).start().await_begun().await_taken_in()
    getattr(fresh_kafka, outage)()
    worker.await_status(
        "the outage is noticed", lambda s: [a for a in s["alerts"] if a["alertname"] == "PipelineStalled"]
    )
    began = time.monotonic()
    assert worker.stop() == 0, worker.said()
    print(f"stopped in {time.monotonic() - began:.1f} s")
    assert worker.one("SELECT count(*) FROM gpu") == 50
    assert worker.one("SELECT count(*) FROM alerts WHERE alertname = 'PipelineStalled'") == 1


def test_dead_letters_that_nobody_takes_hold_their_batch_and_somebody_is_told(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any, eventually: Any
) -> None:
    telemetry_topics(partitions=1)
    _make_anew(kafka.bootstrap, {"max.message.bytes": "100"}, eventually)
    now = time.time() - 30
    events = [gpu_event(i, now + i / 10) for i in range(50)]
    send(kafka.bootstrap, "telemetry.gpu", [*events[:25], b"nothing to understand", *events[25:]])
    worker = worker_factory(kafka.bootstrap, stalled_after=8, give_up_after=20).start()
    assert worker.wait() == 6, worker.said()
    assert "nothing was taken in" in worker.said() and "Traceback" not in worker.said(), worker.said()
    narrow = f"the dead-letter topic {DEADLETTER} takes 100 bytes"
    (end,) = [line for line in worker.log.read_text().splitlines() if line.startswith("gigawatch: ")]
    assert narrow in end, "the message of the end says which topic, and why"
    assert "cannot be written" in worker.log.read_text(), "it was found at the start, too"
    stalled = [a for a in worker.status()["alerts"] if a["alertname"] == "PipelineStalled"]
    assert (
        len(stalled) == 1
        and "Nothing of telemetry.gpu is taken in" in stalled[0]["annotations"]["description"]
    )
    assert narrow in stalled[0]["annotations"]["why"] and stalled[0]["annotations"]["why"] in end
    assert worker.status()["events"]["in"] == 0
    worker.settings["GIGAWATCH_GIVE_UP_AFTER"] = "180"
    began = time.monotonic()
    worker.start().await_begun()
    assert worker.stop() == 0, worker.said()
    print(f"started and stopped in {time.monotonic() - began:.1f} s")
    worker.start().await_begun()
    with admin(kafka.bootstrap) as client:
        client.delete_topics([DEADLETTER])  # and the pipeline, which may, makes it as it should be
    worker.await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    assert worker.one("SELECT count(*) FROM gpu") == worker.one("SELECT count(DISTINCT id) FROM gpu") == 50
    [letters] = describe_topics(kafka.bootstrap, [DEADLETTER])
    assert letters.records == 1 and int(letters.config["max.message.bytes"]) == 5 * 2**20


def _make_anew(bootstrap: str, config: dict[str, str], eventually: Any) -> None:
    """The dead-letter topic, with this configuration."""
    with admin(bootstrap) as client:
        client.delete_topics([DEADLETTER])
    eventually("the topic is gone", lambda: not describe_topics(bootstrap, [DEADLETTER]))
    create_topics(bootstrap, [TopicSpec(DEADLETTER, config=config)])
