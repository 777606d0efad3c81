"""From a batch of records to a delta: the named steps of `STEPS`, in order.

    records → decode → admit → receive → remove duplicates → write segment → roll up → set aside → quarantine
        → count fates → delta

The caller runs these and `Ledger.apply` on one thread: what a batch is worth depends on the ledger's frontier
and on the identities of the batches before it.  Decoding depends on neither: it has a connection of its own, so
that the next batch can be decoded on another thread meanwhile.  A segment needs no connection at all: it is
written from the decoded columns while its batch is rolled up and applied; the commit waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog, EventType
from pipeline.formats.histograms import Reported
from pipeline.ledger.registered import MANY, executed, registered
from pipeline.rollup.aggregate import (
    arrivals_sql,
    charges_sql,
    entities_sql,
    histogram_sql,
    partials_sql,
    pulses_sql,
    unbounded_sql,
)
from pipeline.rollup.delta import ARRIVED, Addition, AsideCount, Delta, Fate, Place, Segment
from pipeline.rollup.revised import is_report_sql, reports_sql
from pipeline.stream.admission import Admission, Beyond, Growth
from pipeline.stream.batch import Batch, stamp_of, topic_records
from pipeline.stream.clocks import Ahead
from pipeline.stream.decode import Decoder
from pipeline.stream.decoded import Decoded, Refusal, forget, met_series, receive, whole_measures
from pipeline.stream.duplicates import RecentIdentities
from pipeline.stream.quarantine_rows import ROWS, SAMPLE_LIMIT, beyond_row, doubted_row
from pipeline.stream.segments import write_raw, write_segment
from pipeline.stream.source_topics import SourceTopic, fed_by, source_decoder
from pipeline.views.published import QUARANTINE

ASIDE_KEPT = 100
"""Rows of the quarantine for each partition, minute, field and reason of measures that are set aside: a fleet may send
"N/A" in every sample for ever.  The rest is counted alone."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be understood, wholly or in the samples that `reasons` names (index → reason)."""

    topic: str
    record: ConsumerRecord
    reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """A batch once it is decoded: of its records only those remain that were refused.

    `topics` is emptied by what takes it in: the columns are large.
    """

    ranges: Mapping[Place, tuple[int, int]]
    topics: dict[str, list[Decoded]]
    letters: Sequence[DeadLetter]
    records: int
    reported: Mapping[tuple[str, str], str | None]
    """(topic of a source, series) → its last cumulative histogram; None where it is forgotten."""
    ahead: Mapping[str, Ahead]
    """What is later than the broker's clock, by topic."""

    def __len__(self) -> int:
        return self.records


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of one topic's part of a batch: each step gives it back with what it has found."""

    topic: str
    event: EventType
    decoded: Decoded
    day: datetime
    before: dict[int, datetime]
    feeding: dict[Place, datetime]
    """What all partitions had reached from which events of this type come, of other topics too."""
    beyond: Sequence[Beyond] = ()
    duplicates: Mapping[tuple[int, datetime], int] = field(default_factory=dict)
    added: Addition | None = None
    samples: pa.Table | None = None
    arrivals: pa.Table | None = None
    segments: tuple[Future[Segment], ...] = ()
    fates: tuple[Fate, ...] = ()
    aside: tuple[AsideCount, ...] = ()
    quarantine: tuple[pa.Table, ...] = ()
    progress: dict[int, datetime] = field(default_factory=dict)


class Processor:
    """Turns batches into deltas on `con`, the ledger's connection; segments are written under `data`.

    `decode` may run on another thread than `take`, one batch at a time and in their order.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        catalog: Catalog,
        data: Path,
        max_bytes: int,
        max_series: int = 20_000,
        max_entities: int = 2_000_000,
        sources: Sequence[SourceTopic] = (),
    ) -> None:
        self._con = con
        self._catalog = catalog
        self._data, self._segments = data, data / "segments"
        self._segments.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._decoders = {e.topic: Decoder(con.cursor(), e, max_bytes, 2 * max_series) for e in catalog.types}
        self._sources = {s.topic: source_decoder(s, catalog, self._decoders, max_bytes) for s in sources}
        self._fed_by = fed_by(sources, catalog)
        self._admission = {e.topic: Admission(con, e, max_series, max_entities) for e in catalog.types}
        self.growth: dict[str, Growth] = {}
        """What of each topic was last beyond its limit, for those who watch."""
        self.seen = {e.topic: RecentIdentities(con, e) for e in catalog.types}
        self._writer = ThreadPoolExecutor(1, "segments")

    def remember(
        self, progress: Mapping[Place, datetime], reported: Mapping[tuple[str, str], str] | None = None
    ) -> None:
        """What was known before a restart: the identities of the last minutes, and what histograms had counted."""
        for name, source in self._sources.items():
            saved = {key: text for (topic, key), text in (reported or {}).items() if topic == name}
            source.differences.know({key: Reported.read(text) for key, text in saved.items()})
        for event in self._catalog.types:
            self.seen[event.topic].rebuild(self._data, self._feeding(event, progress))

    def _feeding(self, event: EventType, progress: Mapping[Place, datetime]) -> dict[Place, datetime]:
        """What the partitions have reached from which events of this type come."""
        return {place: at for place, at in progress.items() if place[0] in self._fed_by[event.topic]}

    def ignored(self) -> dict[str, Counter[str]]:
        """Topic of a source → metric → points that none of its mappings reads, since the start."""
        return {topic: source.ignored for topic, source in self._sources.items() if source.ignored}

    def decode(self, batch: Batch) -> DecodedBatch:
        """Open the records of `batch`, whatever the ledger holds."""
        topics = {
            topic: [decoder.decode(topic_records(records, self._max_bytes, batch.clock))]
            for topic, decoder in self._decoders.items()
            if (records := batch.of_topic(topic))
        }
        for topic, source in self._sources.items():
            if records := batch.of_topic(topic):
                topics[topic] = source.decode(records, batch.clock)
        every = [(topic, one) for topic, found in topics.items() for one in found]
        letters = [letter for _, one in every for letter in _dead_letters(one.refusals)]
        ahead = {topic: found for topic, one in every if (found := _ahead(one.refusals))}
        reported = {
            (topic, series): last.text() if last else None
            for topic, source in self._sources.items()
            for series, last in source.differences.changed().items()
        }
        return DecodedBatch(batch.ranges, topics, letters, len(batch), reported, ahead)

    def take(
        self, batch: DecodedBatch, known_from: Mapping[str, datetime], progress: Mapping[Place, datetime]
    ) -> Delta:
        """The delta of a decoded batch.

        `known_from`: topic → the first instant not yet evaluated (naive UTC); `progress`: what each partition
        had reached before.
        """
        done: list[Work] = []
        for topic in list(batch.topics):
            before = {part: at for (name, part), at in progress.items() if name == topic}
            for decoded in batch.topics.pop(topic):
                event = decoded.event
                feeding = self._feeding(event, progress)
                work = Work(topic, event, decoded, known_from[event.topic], before, feeding)
                try:
                    for step in STEPS:
                        work = step(self, work)
                finally:
                    forget(self._con, event)
                done.append(work)
        segments = [segment for w in done for segment in w.segments]
        return Delta(
            ranges=batch.ranges,
            progress=_furthest(done),
            added=tuple(w.added for w in done if w.added),
            written=lambda: [segment.result() for segment in segments],
            fates=tuple(f for w in done for f in w.fates),
            set_aside=tuple(a for w in done for a in w.aside),
            reported=batch.reported,
        )

    def _admit(self, work: Work) -> Work:
        """Series and entities beyond those that a topic may have are set aside."""
        topic = work.event.topic
        decoded, beyonds = self._admission[topic].admit(work.decoded, work.day)
        for beyond in beyonds:
            self.growth[topic] = Growth(topic, beyond, self.growth.get(topic))
        return replace(work, decoded=decoded, beyond=beyonds)

    def _receive(self, work: Work) -> Work:
        receive(self._con, work.event, work.decoded.samples)
        return replace(work, samples=work.decoded.samples)

    def _remove_duplicates(self, work: Work) -> Work:
        seen = self.seen[work.event.topic]
        arrivals = self._arrow(arrivals_sql(work.event, f"batch_{work.event.view}"))
        progress = _reached(arrivals, work.before)
        samples = work.samples
        assert samples is not None
        if duplicates := seen.find_duplicates(work.before, samples["identity"]):
            samples = self._without_duplicates(work)
            receive(self._con, work.event, samples)
        seen.remember({**work.feeding, **{(work.topic, part): at for part, at in progress.items()}})
        return replace(work, samples=samples, arrivals=arrivals, progress=progress, duplicates=duplicates)

    def _without_duplicates(self, work: Work) -> pa.Table:
        with registered(self._con, "samples", work.samples):
            return self._arrow(f"FROM samples ANTI JOIN duplicates_{work.event.view} USING (row, idx)")

    def _write_segment(self, work: Work) -> Work:
        """The raw rows, with their dimensions."""
        assert work.samples is not None
        if not work.samples.num_rows:
            return work
        segment = self._writer.submit(write_raw, self._segments, work.event, work.samples)
        return replace(work, segments=(*work.segments, segment))

    def _roll_up(self, work: Work) -> Work:
        """What the samples add up to, as values."""
        event, samples = work.event, f"batch_{work.event.view}"
        met = met_series(work.decoded)
        added = Addition(event.view, met, arrivals=work.arrivals)
        assert work.samples is not None
        if not work.samples.num_rows:
            return replace(work, added=added if met.num_rows else None)
        if event.retained:
            with registered(self._con, "samples", work.samples):
                return replace(work, added=replace(added, charges=self._arrow(charges_sql(event, "samples"))))
        if event.revision:
            added = replace(added, reports=self._arrow(reports_sql(event, samples)))
            samples = f"(FROM {samples} WHERE NOT {is_report_sql(event)})"
        rolled = replace(
            added,
            partials=self._arrow(partials_sql(event, samples, whole_measures(event, work.samples))),
            histogram=self._histogram(work, samples),
            entities=self._entities(work, samples),
            pulses=self._arrow(pulses) if (pulses := pulses_sql(event, samples)) else None,
        )
        return replace(work, added=rolled)

    def _entities(self, work: Work, samples: str) -> pa.Table | None:
        if not work.event.entity:
            return None
        much = work.decoded.samples.num_rows > MANY
        return executed(self._con, entities_sql(work.event, samples), much=much)

    def _histogram(self, work: Work, samples: str) -> pa.Table | None:
        if (sql := histogram_sql(work.event, samples)) is None:
            return None
        rows = self._arrow(sql)
        if work.decoded.beyond is None:
            return rows
        with registered(self._con, "beyond", work.decoded.beyond), registered(self._con, "bounded", rows):
            return self._arrow(unbounded_sql(samples, "bounded"))

    def _arrow(self, sql: str) -> pa.Table:
        return executed(self._con, sql)

    def _set_aside(self, work: Work) -> Work:
        """Count what the samples lack that are aggregated, and keep the first of each kind, whatever the batches are."""
        if not work.decoded.aside.num_rows:
            return work
        con, topic = self._con, work.event.topic
        before = (
            "SELECT part, minute, field, reason, sum(n) AS before FROM set_aside "
            "WHERE topic = $topic AND minute >= $since GROUP BY ALL"
        )
        with registered(con, "aside", work.decoded.aside):
            con.execute(
                "CREATE OR REPLACE TEMP TABLE delta_aside AS SELECT *, date_trunc('minute', record_time) AS minute "
                f"FROM aside SEMI JOIN batch_{work.event.view} USING (row, idx)"
            )
        counts = con.execute(
            "SELECT part, minute, field, reason, count(*) FROM delta_aside GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        if not counts:
            return work
        aside = tuple(AsideCount(topic, *count) for count in counts)
        since = min(count.minute for count in aside)
        rows = executed(
            con,
            f"""SELECT time, $topic AS topic, part, record_offset, reason, field, source, id, idx,
                left('{{"' || field || '": ' || text || '}}', {SAMPLE_LIMIT}) AS sample, record_time
            FROM delta_aside LEFT JOIN ({before}) USING (part, minute, field, reason)
            QUALIFY coalesce(before, 0) + row_number() OVER (
                PARTITION BY part, minute, field, reason ORDER BY row, idx) <= {ASIDE_KEPT}""",
            {"topic": topic, "since": since},
        )
        return replace(work, aside=aside, quarantine=(*work.quarantine, rows.cast(ROWS)))

    def _quarantine(self, work: Work) -> Work:
        topic = work.event.topic
        doubted = [r for r in work.decoded.refusals if r.outcome.fate == "quarantined"]
        found = [doubted_row(topic, r) for r in doubted]
        found += [beyond_row(topic, b.reason, kept) for b in work.beyond for kept in b.kept]
        rows = pa.concat_tables([*work.quarantine, pa.Table.from_pylist(found, ROWS)])
        if not rows.num_rows:
            return work
        times = pc.coalesce(rows["time"], rows["record_time"])
        segment = self._writer.submit(
            write_segment, self._segments, work.event, QUARANTINE, QUARANTINE, rows, times
        )
        return replace(work, segments=(*work.segments, segment))

    def _count_fates(self, work: Work) -> Work:
        """What came in, counted when it was opened, and what became of it, counted at the end."""
        counts = Counter({(*place, ARRIVED, ""): n for place, n in work.decoded.arrived.items()})
        view = work.event.view
        for part, minute, n in self._con.execute(
            f"SELECT part, date_trunc('minute', record_time), count(*) FROM batch_{view} GROUP BY ALL ORDER BY ALL"
        ).fetchall():
            counts[part, minute, "aggregated", ""] += n
        for place, n in work.duplicates.items():
            counts[*place, "duplicate", "identity_seen"] += n
        for beyond in work.beyond:
            for place, n in beyond.counts.items():
                counts[*place, "quarantined", beyond.reason] += n
        for refusal in work.decoded.refusals:
            outcome = refusal.outcome
            counts[*refusal.place, outcome.fate, outcome.reason] += 1
        fates = tuple(Fate(work.event.topic, *key, n) for key, n in sorted(counts.items()) if n)
        return replace(work, fates=fates)


STEPS = (
    Processor._admit,
    Processor._receive,
    Processor._remove_duplicates,
    Processor._write_segment,
    Processor._roll_up,
    Processor._set_aside,
    Processor._quarantine,
    Processor._count_fates,
)
"""What happens to a topic's records once they are decoded, in order; read this as the table of contents."""


def _reached(arrivals: pa.Table, before: Mapping[int, datetime]) -> dict[int, datetime]:
    """The greatest min(event time, record time) of each partition, never less than before."""
    found = arrivals.group_by("part").aggregate([("reached", "max")]).to_pylist()
    return {row["part"]: max(row["reached_max"], before.get(row["part"], datetime.min)) for row in found}


def _ahead(refusals: Sequence[Refusal]) -> Ahead | None:
    found = {r.position: r for r in refusals if r.outcome.reason == "record_time_in_future"}
    if not found:
        return None
    latest = max(found.values(), key=lambda refusal: refusal.record.timestamp)
    seconds = (stamp_of(latest.record.timestamp) - latest.record_time).total_seconds()
    return Ahead(len(found), seconds, latest.outcome.source or "")


def _furthest(done: Sequence[Work]) -> dict[Place, datetime]:
    """What each partition has reached; one message of a source may be samples of several event types."""
    found: dict[Place, datetime] = {}
    for work in done:
        for part, at in work.progress.items():
            place = (work.topic, part)
            found[place] = max(at, found.get(place, at))
    return found


def _dead_letters(refusals: Sequence[Refusal]) -> Sequence[DeadLetter]:
    """One for each record: an array with ten bad samples is kept once, with ten reasons."""
    letters: dict[tuple[int, int], DeadLetter] = {}
    reasons: dict[tuple[int, int], dict[int, str]] = {}
    for refusal in sorted(refusals, key=lambda each: each.position):
        if refusal.outcome.fate == "dead_lettered":
            at = (refusal.record.partition, refusal.record.offset)
            reasons.setdefault(at, {})[refusal.outcome.idx] = refusal.outcome.reason
            letters.setdefault(at, DeadLetter(refusal.record.topic, refusal.record, reasons[at]))
    return list(letters.values())
