"""Bills on S3: read as from a directory, and refused with what the store said; against a server that checks signatures."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.broker.kafka import free_port
from pipeline.catalog import load
from pipeline.collect.bill_import import Bill, BillOptions
from pipeline.collect.bill_report import BillReport
from pipeline.errors import BillError
from tests.collect.conftest import csv_of
from tests.collect.object_store import GET, LIST, REGION, ObjectStore

WHOLE = csv_of(*({"BilledCost": str(n)} for n in range(2000))).encode()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store with bills of every kind, good and bad."""
    path = tmp_path_factory.mktemp("parquet") / "b.parquet"
    (path.parent / "b.csv").write_text(csv_of({"BilledCost": "2.50"}))
    duckdb.sql(f"COPY (FROM read_csv('{path.parent}/b.csv', all_varchar = true)) TO '{path}'")
    with ObjectStore() as store:
        store.put("november/a.csv.gz", gzip.compress(csv_of({}, {}).encode()))
        store.put("november/run=1/b.parquet", path.read_bytes())
        store.put("november/_SUCCESS", b"")
        store.put("november/manifest.txt", b"a list")
        store.put("november-2/c.csv", WHOLE)
        store.put("long/c.csv", WHOLE)
        store.put("cut/d.csv.gz", gzip.compress(WHOLE)[:-100])
        store.put("cut/d.parquet", path.read_bytes()[:-8])
        yield store


@pytest.fixture(scope="module")
def reader(store: ObjectStore) -> Mapping[str, str]:
    return store.user("reader", LIST, GET)


def surroundings(store: ObjectStore, **more: str) -> dict[str, str]:
    """The variables of a process that finds the store, and none of this machine's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = {name: os.devnull for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    found = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": REGION, "AWS_ENDPOINT_URL": store.url}
    return {**own, **nowhere, **found, **more}


@pytest.fixture
def read_from(
    store: ObjectStore, reader: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., BillReport]:
    """`read_from(url…, **variables)`: the report of a bill on the store, read as `reader`."""

    def read_from(*urls: str, **variables: str) -> BillReport:
        for name, value in surroundings(store, **{**reader, **variables}).items():
            monkeypatch.setenv(name, value)
        with Bill(urls, load(), BillOptions()) as bill:
            return bill.report

    return read_from


def test_a_prefix_is_one_bill_of_what_lies_below_it_in_any_form(read_from: Any) -> None:
    report = read_from("s3://bills/november")
    assert report.files == [("s3://bills/november/a.csv.gz", 2), ("s3://bills/november/run=1/b.parquet", 1)]
    assert report.document()["sums"]["by_currency"][0]["BilledCost"] == "5.50"
    assert read_from("s3://bills/november/").files == report.files
    assert read_from("s3://bills/november/a.csv.gz").files == report.files[:1]
    assert read_from("s3://bills/november/a.csv.gz", "s3://bills/november/run=1").files == report.files


def test_objects_on_a_second_page_of_the_listing_are_read_too(store: ObjectStore, read_from: Any) -> None:
    for number in range(1001):
        store.put(f"many/{number:04}.txt", b"")
    store.put("many/last.csv", csv_of({}).encode())
    store.asked.clear()
    assert read_from("s3://bills/many").files == [("s3://bills/many/last.csv", 1)]
    assert any("continuation-token=" in asked for asked in store.asked)


def test_one_object_is_read_with_the_right_to_it_alone(store: ObjectStore, read_from: Any) -> None:
    blind = store.user("blind", GET)
    assert read_from("s3://bills/long/c.csv", **blind).rows == 2000
    with pytest.raises(
        BillError, match=r"s3://bills/long: may not be read .* expected the rights s3:ListBucket"
    ):
        read_from("s3://bills/long", **blind)


@pytest.mark.parametrize(
    ("url", "variables", "told"),
    [
        ("s3://other/november", {}, r"s3://other/november: found no bucket 'other' at http://127\.0\.0\.1:"),
        (
            "s3://bills/december/",
            {},
            "s3://bills/december/: found no file of a bill; expected names that end in",
        ),
        ("s3://bills/nov", {}, "s3://bills/nov: found no file of a bill"),
        ("s3://", {}, "expected a path on this machine or s3://BUCKET/PREFIX"),
        ("gs://bills/november", {}, "found the scheme 'gs'"),
        (
            "s3://bills/november",
            {"AWS_ACCESS_KEY_ID": "AKIANOBODY"},
            "not those of the store; check AWS_ACCESS_KEY_ID",
        ),
        ("s3://bills/november", {"AWS_SECRET_ACCESS_KEY": "guessed"}, r"SIGNATURE_DOES_NOT_MATCH"),
        ("s3://bills/cut/d.csv.gz", {}, r"s3://bills/cut/d\.csv\.gz: cannot be read"),
        ("s3://bills/cut/d.parquet", {}, r"s3://bills/cut/d\.parquet: cannot be read"),
    ],
)
def test_what_is_not_there_or_not_allowed_or_not_whole_is_told_with_what_to_do(
    read_from: Any, url: str, variables: dict[str, str], told: str
) -> None:
    with pytest.raises(BillError, match=told):
        read_from(url, **variables)


def test_an_object_that_breaks_off_on_the_way_is_no_bill(store: ObjectStore, read_from: Any) -> None:
    store.breaks_off.add("/bills/long/c.csv")
    try:
        with pytest.raises(
            BillError, match=r"s3://bills/long/c\.csv: broke off in the middle.*import it again"
        ):
            read_from("s3://bills/long")
    finally:
        store.breaks_off.clear()


def test_a_store_that_does_not_answer_is_named(read_from: Any) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(BillError, match=f"no store answers at {nowhere}; check AWS_ENDPOINT_URL"):
        read_from("s3://bills/november", AWS_ENDPOINT_URL=nowhere)


def test_a_profile_says_keys_region_and_endpoint(
    store: ObjectStore, reader: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"[default]\nregion = us-east-1\n[profile finance]\nregion = {REGION}\nendpoint_url = {store.url}\n"
    )
    keys = "".join(f"{name.lower()} = {value}\n" for name, value in reader.items())
    (tmp_path / "credentials").write_text(f"[finance]\n{keys}")
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    variables = surroundings(store, AWS_PROFILE="finance", **files)
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL"):
        del variables[name]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "import", "focus", "s3://bills/november", "--dry-run", "--json"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["refused"]) == (3, 0)
