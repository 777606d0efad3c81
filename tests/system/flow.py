"""The steady scenario at a rate of one's own, in real time: what a test measures others against, in a process of its own.

    python flow.py BOOTSTRAP RATE SECONDS CONTRACTS REPORT.json

writes the contract into the directory CONTRACTS, says `ready`, waits for a line on its standard input, and then
writes `RATE` GPU samples a second for SECONDS.  REPORT says what Kafka has acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from pipeline.simulate import scenarios
from pipeline.simulate.scenarios import Play
from pipeline.simulate.simulator import PlayPace, run
from pipeline.simulate.writer import Sent, writer


def plan(rate: float, now: float) -> Play:
    """The play from now on, with a day of past charges: twenty would be most of what is published."""
    scenario = scenarios.load("steady")
    billing = scenario.fleet.billing.model_copy(update={"history": 86_400})
    fleet = scenario.fleet.model_copy(update={"billing": billing})
    return scenarios.plan(scenario.model_copy(update={"fleet": fleet}), now, rate=rate)


async def flow(bootstrap: str, play: Play, seconds: int) -> Sent:
    async with writer(bootstrap) as out:
        pace = PlayPace(play.start * 1000, 1.0, float(play.start))
        await run(play.fleet(), out, play.start * 1000, (play.start + seconds) * 1000, pace)
        return out.sent


def main() -> None:
    bootstrap, rate, seconds, contracts, report = sys.argv[1:]
    plan(float(rate), time.time()).write_contract(Path(contracts))
    print("ready", flush=True)
    sys.stdin.readline()
    sent = asyncio.run(flow(bootstrap, plan(float(rate), time.time()), int(seconds)))
    Path(report).write_text(json.dumps({"samples": dict(sent.samples)}), "utf-8")


if __name__ == "__main__":
    main()
