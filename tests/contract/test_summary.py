"""What `contract check` prints of a contract that is right."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pipeline.clauses import load_all
from pipeline.contract.summary import summary

EXAMPLE = Path(__file__).resolve().parents[2] / "schemas" / "example-contract.yaml"


def lines(at: str, contract: Path = EXAMPLE) -> list[str]:
    (found,) = load_all(contract)
    return list(summary(found, int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp())))


def test_each_window_says_when_it_is_open_next_in_its_own_zone_and_what_is_asked_inside() -> None:
    text = lines("2026-10-24 21:00")
    peak = text.index("  window peak-season, Europe/Berlin:")
    assert text[peak + 1 :] == [
        "    next  2026-11-16 00:00 CET to 2027-01-11 00:00 CET",
        "    next  2027-11-15 00:00 CET to 2028-01-10 00:00 CET",
        "    next  2028-11-13 00:00 CET to 2029-01-01 00:00 CET",
        "    eu-fleet           at least 4,096 GPUs, critical",
        "    planning-wait-p95  at most 300s",
        "    planning-backlog   at most 250",
        "  window fleet-replanning, Europe/Berlin:",
        "    next  2026-10-25 22:00 CET to 2026-10-26 04:00 CET",
        "    next  2026-10-26 22:00 CET to 2026-10-27 04:00 CET",
        "    next  2026-10-27 22:00 CET to 2026-10-28 04:00 CET",
        "    eu-fleet           critical",
        "    planning-wait-p95  at most 120s, critical",
    ]
    open_now = lines("2026-10-22 21:30")
    assert "    open  2026-10-22 22:00 CEST to 2026-10-23 04:00 CEST" in open_now, (
        "across the change of clocks: CEST, CET"
    )


def test_a_bound_that_moves_between_occurrences_is_told_step_by_step(tmp_path: Path) -> None:
    moved = tmp_path / "contract.yaml"
    ramp = "committed_gpus: [{from: 2026-01-01, value: 4096}, {from: 2027-06-01, value: 5120}]"
    text = EXAMPLE.read_text("utf-8")
    assert text.count("        committed_gpus: 4096") == 1
    moved.write_text(text.replace("        committed_gpus: 4096", f"        {ramp}"))
    assert "    eu-fleet           at least 4,096 GPUs, then at least 5,120 GPUs, critical" in lines(
        "2026-10-24 21:00", moved
    )


def test_a_window_that_does_not_come_again_says_so() -> None:
    assert lines("2029-01-02 00:00").count("    no occurrence left in the term") == 2
