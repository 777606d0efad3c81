"""Patience: how long, and what may cut it short."""

from __future__ import annotations

import asyncio
import random

import httpx
from hypothesis import given
from hypothesis import strategies as st

from pipeline.notify.delivery import Delivery
from pipeline.notify.policy import Policy, Timing
from pipeline.notify.webhook import Webhook


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e6), st.integers())
def test_a_backoff_is_full_jitter_below_an_exponential_bound_and_believes_the_receiver_up_to_the_cap(
    failures: int, asked: float | None, seed: int
) -> None:
    policy = Policy()
    wait = policy.backoff(failures, random.Random(seed), asked)
    assert 0 <= wait <= policy.backoff_cap
    if asked is not None:
        assert wait >= min(asked, policy.backoff_cap)
    if asked is None and failures < 6:
        assert wait <= 2 ** (failures - 1)


def test_jitter_spreads_over_the_whole_bound() -> None:
    rng = random.Random(1)
    waits = [Policy().backoff(20, rng) for _ in range(1000)]
    assert min(waits) < 5
    assert max(waits) > 55


@given(st.integers())
def test_a_firing_alert_is_sent_again_within_a_minute(seed: int) -> None:
    assert 0 < Policy().until_resend(random.Random(seed)) < 60


class Alarm:
    """A sleep that ends when the test says so, and tells how long it was asked to be."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.rings = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.rings.wait()


def test_new_rows_do_not_cut_a_backoff_short(receiver, outbox, running, until, change) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        alarm = Alarm()
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as http:
            hook.otherwise = "500"
            delivery = Delivery(ledger, [Webhook(hook.url, http)], timing=Timing(sleep=alarm))
            ledger.write(change("a"))
            async with running(delivery):
                await until(lambda: len(alarm.asked) == 1)
                for _ in range(20):
                    delivery.nudge()
                    await asyncio.sleep(0.005)
                assert hook.requests == 1
                alarm.rings.set()
                await until(lambda: hook.requests > 1)

    asyncio.run(scenario())


def test_new_rows_wake_an_idle_lane(receiver, outbox, running, until, change) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        alarm = Alarm()
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as http:
            delivery = Delivery(ledger, [Webhook(hook.url, http)], timing=Timing(sleep=alarm))
            async with running(delivery):
                await until(lambda: alarm.asked == [Policy().idle_poll])
                ledger.write(change("a"))
                delivery.nudge()
                await until(lambda: hook.told() == [("a", "firing")])

    asyncio.run(scenario())


def test_a_lane_that_nobody_wakes_looks_for_itself(receiver, outbox, running, until, change) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        alarm = Alarm()
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as http:
            delivery = Delivery(ledger, [Webhook(hook.url, http)], timing=Timing(sleep=alarm))
            async with running(delivery):
                await until(lambda: len(alarm.asked) == 1)
                ledger.write(change("a"))
                alarm.rings.set()
                await until(lambda: hook.told() == [("a", "firing")])
                alarm.rings.clear()

    asyncio.run(scenario())
