"""A label that is new with every sample: 200,000 new clusters in 200 seconds, beside a fleet that goes on.

    python tests/bench/cardinality.py [SECONDS] [NEW_PER_SECOND]

Each second a batch of new clusters and of a fleet of 1,000 known GPUs goes through the real decoder, processor and ledger;
it says how long a batch takes at the start, at the limit and at the end, and what memory and disk come to.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from aiokafka.structs import ConsumerRecord

from pipeline.catalog import load
from pipeline.clauses import plan_of
from pipeline.history import publish, seal
from pipeline.ledger import status
from pipeline.ledger.store import Ledger
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor

TOPIC = "telemetry.gpu"
START = datetime(2026, 11, 29, 12, tzinfo=UTC)
HEADERS = (("content-type", b"application/cloudevents+json"),)
KNOWN = 1_000


def value(id: str, at: datetime, cluster: str, gpu: str) -> bytes:
    sample = {
        "provider": "p", "region": "r", "site": "s", "cluster": cluster, "sku": "x", "node": "n", "gpu": gpu,
        "health": "ok",
    }  # fmt: skip
    return json.dumps(
        {
            "specversion": "1.0",
            "id": id,
            "source": "/n",
            "type": "gpu.utilization.v1",
            "time": at.isoformat(),
            "data": sample,
        }
    ).encode()


def main(seconds: int, new: int) -> None:
    catalog = load()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        ledger = Ledger(data, catalog)
        processor = Processor(ledger.con, catalog, data, 2**20)
        ledger.use((), plan_of((), catalog), 0.0)
        took = []
        for second in range(seconds):
            at = START + timedelta(seconds=second)
            values = [value(f"k{second}-{n}", at, "known", f"g{n}") for n in range(KNOWN)]
            values += [value(f"n{second}-{n}", at, f"job-{second}-{n}", "g") for n in range(new)]
            low = second * len(values)
            stamp = round(at.timestamp() * 1000)
            records = [
                ConsumerRecord(TOPIC, 0, low + n, stamp, 1, None, v, None, -1, len(v), HEADERS)  # type: ignore[arg-type]
                for n, v in enumerate(values)
            ]
            begun = time.monotonic()
            decoded = processor.decode(Batch({(TOPIC, 0): records}, {(TOPIC, 0): (low, low + len(values))}))
            delta = processor.take(decoded, ledger.known_from(), ledger.progress())
            mark = at.replace(tzinfo=None) - timedelta(seconds=5)
            ledger.apply(delta, {TOPIC: mark}, at.timestamp(), 360)
            took.append(time.monotonic() - begun)
        begun = time.monotonic()
        publish.publish(ledger.cursor(), data, catalog)
        seal.seal(ledger.cursor(), data, catalog)
        housekeeping = time.monotonic() - begun
        found = status.snapshot(ledger.cursor())
        parts = {"first 10": took[:10], "last 10": took[-10:], "all": took}
        for name, part in parts.items():
            print(f"seconds for a batch, {name}: median {median(part):.2f}, most {max(part):.2f}")
        print(f"publish and seal: {housekeeping:.1f} s")
        print(f"series: {ledger.con.execute('SELECT count(*) FROM series_gpu').fetchall()[0][0]:,}")
        print(f"fates: {found['events']}, {found['by_topic'][TOPIC]['reasons']}")
        print(f"status.json: {len(json.dumps(found)):,} bytes")
        print(f"disk: {sum(p.stat().st_size for p in data.rglob('*') if p.is_file()) / 2**20:,.0f} MB")
        print(f"memory at its most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")
        ledger.close()


if __name__ == "__main__":
    main(*(int(given) for given in (sys.argv[1:] or ("200", "1000"))))
