"""Endpoints of every kind: what answers becomes events, what does not is down and says why, and nothing hangs or grows."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.catalog import load
from pipeline.collect.collector import Collector, SourceKind
from pipeline.collect.scrape import ScrapeOptions
from pipeline.collect.targets import TargetFile, target_of
from pipeline.errors import SettingsError
from pipeline.formats.registry import format_named
from pipeline.mappings.mapping_file import load_source_mapping
from pipeline.mappings.trial import given_of
from pipeline.stream.inspect import inspect
from tests.patience import PATIENCE
from tests.records import records_of

_spec = importlib.util.spec_from_file_location("endpoints", Path(__file__).with_name("endpoints.py"))
assert _spec and _spec.loader
endpoints = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(endpoints)

ROOT = Path(__file__).parents[2]
CATALOG = load()
PLACE = ["provider=halcyon", "region=eu-west", "site=ams-02", "cluster=ams-h1", "sku=H100"]
INSTANT = 1_795_461_960


def dcgm(gpus: int = 2, utilization: float = 0.5, host: str = "node-0042") -> bytes:
    """dcgm-exporter 4.9 of a node."""
    lines = []
    for n in range(gpus):
        labels = f'gpu="{n}",UUID="GPU-{n:08d}-0c43-4e0a-8a6e-61d9f0a2c001",hostname="{host}"'
        lines += [
            f'DCGM_FI_DEV_GPU_UTIL_RATIO{{{labels},DCGM_FI_DRIVER_VERSION="575.1"}} {utilization:.6f}',
            f"DCGM_FI_DEV_BOARD_POWER_WATTS{{{labels}}} {600 + n}",
        ]
    return ("\n".join(lines) + "\n").encode()


def kind(mapping: str = "dcgm") -> SourceKind:
    found = load_source_mapping(mapping, CATALOG)
    return SourceKind(format_named(found.formats[0]), found)


def scraped(
    *urls: str, mapping: str = "dcgm", seconds: float = 3.0, every: int = 30, **options: Any
) -> tuple[list[Any], dict[str, Any]]:
    """The events of one round over these URLs, and the state of each by its path."""
    events: list[Any] = []

    async def emit(_: Any, event: dict[str, Any]) -> None:
        events.append(event)

    async def run() -> dict[str, Any]:
        given = given_of(PLACE if mapping == "dcgm" else PLACE[:3], [])
        scrape = ScrapeOptions(seconds=seconds, **options)
        async with Collector(
            CATALOG, lambda name: kind(name or mapping), given, every, scrape, emit
        ) as collector:
            collector.aim([target_of(url) for url in urls])
            await collector.once(INSTANT)
            return {state.target.url.rpartition("/")[2]: state for state in collector.states.values()}

    return events, asyncio.run(run())


def test_what_an_exporter_says_is_one_event_for_each_target_that_the_pipeline_takes() -> None:
    with endpoints.endpoint({"/metrics": dcgm(8), "/packed": endpoints.gzipped(dcgm(8))}) as node:
        events, states = scraped(f"{node.url}/metrics", f"{node.url}/packed")
    assert [state.up for state in states.values()] == [True, True]
    assert [len(event["data"]) for event in events] == [8, 8] and events[0]["data"] == events[1]["data"]
    (first, *_), event = events[0]["data"], events[0]
    assert (first["utilization_ratio"], first["power_watts"], first["region"]) == (0.5, 600, "eu-west")
    assert (event["time"], event["source"]) == ("2026-11-23T19:26:00Z", f"/collect/dcgm/{node.address}")
    headers = [("content-type", b"application/cloudevents+json")]
    moment = datetime.fromtimestamp(INSTANT, UTC).replace(tzinfo=None)
    outcomes = inspect(CATALOG.by_topic("telemetry.gpu"), json.dumps(event).encode(), headers, moment, 2**20)
    assert [(outcome.fate, outcome.aside) for outcome in outcomes] == [("aggregated", ())] * 8


def test_two_collectors_of_one_target_send_the_same_event_and_an_own_interval_is_declared() -> None:
    with endpoints.endpoint({"/metrics": dcgm()}) as node:
        once, again = (scraped(f"{node.url}/metrics")[0] for _ in range(2))
        slow, _ = scraped(f"{node.url}/metrics", every=300)
    assert once == again and "interval" not in once[0]
    assert slow[0]["interval"] == 300


def test_the_devices_that_one_exporter_answers_for_are_no_duplicates_of_each_other() -> None:
    with endpoints.endpoint({"/probe": dcgm()}) as node:
        events, _ = scraped(f"{node.url}/probe?target=a", f"{node.url}/probe?target=b")
    assert len({(event["source"], event["id"]) for event in events}) == 2


def test_a_management_controller_is_read_as_json() -> None:
    answer = json.dumps(
        {"Id": "Power", "PowerControl": [{"PowerConsumedWatts": 429, "PowerCapacityWatts": 1400}]}
    )
    with endpoints.endpoint({"/redfish": answer.encode()}) as chassis:
        ((event,), _) = scraped(f"{chassis.url}/redfish", mapping="redfish")
    assert event["type"] == "energy.reading.v1" and event["data"][0]["it_power_watts"] == 429


def test_an_hour_that_is_estimated_and_then_measured_is_two_events_of_one_time() -> None:
    hour = {"zone": "NL", "datetime": "2026-11-23T18:00:00.000Z"}
    told = [
        {**hour, "carbonIntensity": 318, "isEstimated": True, "updatedAt": "2026-11-23T18:50:00.000Z"},
        {**hour, "carbonIntensity": 302, "isEstimated": False, "updatedAt": "2026-11-23T21:50:00.000Z"},
    ]
    events = []
    for answer in told:
        with endpoints.endpoint({"/latest": json.dumps(answer).encode()}) as api:
            events += scraped(f"{api.url}/latest", mapping="electricity_maps")[0]
    assert {event["time"] for event in events} == {"2026-11-23T18:00:00Z"} and events[0]["id"] != events[1][
        "id"
    ]
    said = [(d["status"], d["issued"], d["carbon_gco2e_per_kwh"]) for event in events for d in event["data"]]
    assert said == [("estimated", told[0]["updatedAt"], 318), ("final", told[1]["updatedAt"], 302)]


MOST = 8 * 2**20
FOR_EVER = endpoints.ForEver()
HOSTILE: list[tuple[str, Any, str]] = [
    ("for-ever", FOR_EVER, "too_large"),
    ("bomb", endpoints.bomb(200), "too_large"),
    ("drip", endpoints.drip, "timeout"),
    ("redirect", endpoints.redirect("http://elsewhere.example/secret"), "redirected"),
    ("round", endpoints.redirect("/round"), "redirected"),
    ("error", lambda request: endpoints.body(request, b"no", 500), "status_500"),
    ("headers", endpoints.endless_headers, "not_http"),
    ("no-http", endpoints.no_http, "not_http"),
    ("cut", endpoints.cut_off, "not_http"),
    (
        "half-gzip",
        lambda request: endpoints.body(request, gzip.compress(dcgm())[:-9], Content_Encoding="gzip"),
        "broken_gzip",
    ),
    ("false-gzip", lambda request: endpoints.body(request, dcgm(), Content_Encoding="gzip"), "broken_gzip"),
    ("brotli", lambda request: endpoints.body(request, b"x", Content_Encoding="br"), "encoding"),
    ("html", b"<html><body>Sign in</body></html>", "not_prometheus_text"),
    ("bytes", b"\xff\xfe\x00", "not_utf8"),
    ("labels", b"m{" + b",".join(b'l%d="x"' % n for n in range(100_000)) + b"} 1\n", "too_many_labels"),
    ("long", b"m" * 5_000_000 + b" 1\n", "text_too_long"),
]


def test_whatever_an_endpoint_does_it_is_down_by_name_and_the_others_go_on() -> None:
    answers = {f"/{path}": answer for path, answer, _ in HOSTILE}
    with endpoints.endpoint({**answers, "/metrics": dcgm()}) as node:
        urls = [f"{node.url}/{path}" for path in ("metrics", *(path for path, *_ in HOSTILE))]
        events, states = scraped(*urls, seconds=15, most=MOST)
        asked = list(node.asked)
    assert {path: dict(states[path].failures) for path, *_ in HOSTILE} == {
        path: {reason: 1} for path, _, reason in HOSTILE
    }
    assert all(not states[path].up and states[path].why for path, *_ in HOSTILE)
    assert states["metrics"].up and len(events) == 1, "nothing is sent in the place of what is down"
    assert asked.count("/round") == 1
    assert FOR_EVER.written < 4 * MOST, (
        "no more is read than an answer may have, and what lies in buffers by then"
    )


def test_a_target_that_is_not_there_is_down() -> None:
    _, states = scraped(f"http://127.0.0.1:{free_port()}/metrics", "http://nowhere.example/metrics2")
    assert [dict(state.failures) for state in states.values()] == [{"unreachable": 1}, {"unreachable": 1}]


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """`certificate(name)`: a certificate that its own key has signed, for that address or host."""

    def make(name: str) -> tuple[Path, Path]:
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        made = (
            x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
            .serial_number(7).not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2100, 1, 1))
            .add_extension(x509.SubjectAlternativeName([address]), False)
            .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
        )  # fmt: skip
        cert, private = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return cert, private

    return make


def test_only_the_certificate_of_the_target_itself_is_trusted(
    certificate: Callable[[str], tuple[Path, Path]],
) -> None:
    import ssl

    own, other = certificate("127.0.0.1"), certificate("other.example")
    with (
        endpoints.endpoint({"/own": dcgm()}, own) as good,
        endpoints.endpoint({"/other": dcgm()}, other) as bad,
    ):
        for authority, url, up in (
            (None, f"{good.url}/own", False),
            (own, f"{good.url}/own", True),
            (other, f"{bad.url}/other", False),
        ):
            tls = ssl.create_default_context(cafile=authority[0]) if authority else None
            events, states = scraped(url, tls=tls)
            ((state,),) = (states.values(),)
            assert (state.up, len(events)) == (up, int(up))
            assert up or (dict(state.failures) == {"certificate": 1} and "--ca-file" in state.why)


def test_what_a_histogram_counts_between_two_scrapes_is_what_is_sent() -> None:
    """The state of a target is its own, and stays while it is aimed at; a series that is gone for a day begins anew."""
    events: list[Any] = []

    async def emit(_: Any, event: dict[str, Any]) -> None:
        events.append(event["data"][0])

    def kueue(count: int) -> bytes:
        name, queue = "kueue_admission_wait_time_seconds", 'cluster_queue="q1"'
        return (
            f"# TYPE {name} histogram\n" + "".join(f'{name}_bucket{{{queue},le="{le}"}} {count}\n' for le in (1, 5, "+Inf"))
            + f"{name}_sum{{{queue}}} 1\n{name}_count{{{queue}}} {count}\n"
            + f'kueue_pending_workloads{{{queue},status="active"}} 3\n'
        ).encode()  # fmt: skip

    async def run(node: Any) -> None:
        given = given_of([*PLACE[:2], "cluster=c", "workload_class=training"], [])
        async with Collector(CATALOG, lambda _: kind("kueue"), given, 30, ScrapeOptions(), emit) as collector:
            target = target_of(f"{node.url}/metrics")
            for seconds, count in ((0, 10), (30, 14), (2 * 86_400, 90), (2 * 86_400 + 30, 97)):
                node.answers["/metrics"] = kueue(count)
                collector.aim([target])
                await collector.once(INSTANT + seconds)

    with endpoints.endpoint({}) as node:
        asyncio.run(run(node))
    counted = [sum(each["count"] for each in event.get("admission_wait_seconds", ())) for event in events]
    assert counted == [0, 4, 0, 7]


# --- targets -----------------------------------------------------------------------------------------------------


def test_a_file_of_targets_is_read_as_prometheus_reads_it_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "targets.yaml"
    path.write_text(
        "- targets: [node-1:9400, 'node-2:9400']\n  labels: {rack: r1, __scheme__: https, "
        "__metrics_path__: /m, __param_a: 'b c'}\n"
        "- targets: [bmc:80]\n  labels: {__mapping__: redfish}\n"
    )
    file = TargetFile(path)
    assert file.read() and not file.read()
    assert [t.url for t in file.targets] == [
        "https://node-1:9400/m?a=b+c", "https://node-2:9400/m?a=b+c", "http://bmc:80/metrics",
    ]  # fmt: skip
    assert dict(file.targets[0].labels) == {"instance": "node-1:9400", "rack": "r1"}
    assert [t.mapping for t in file.targets] == [None, None, "redfish"]
    path.write_text(json.dumps([{"targets": ["node-3:9400"]}]))
    assert file.read() and [t.instance for t in file.targets] == ["node-3:9400"]
    path.write_text("- targets: node-4:9400\n")
    with pytest.raises(SettingsError, match=r"group 1: targets: found 'node-4:9400', expected a list"):
        file.read()
    assert [t.instance for t in file.targets] == ["node-3:9400"], "the old ones go on"


@pytest.mark.parametrize(
    "url", ["node:9400", "ftp://node/", "http://", "http://[::1", "http://node:0/", "http://node:99999/"]
)
def test_a_url_that_cannot_be_scraped_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="expected a URL"):
        target_of(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        target_of("http://admin:hunter2@bmc/redfish")
    assert "--password-file" in str(refused.value) and "hunter2" not in str(refused.value)


# --- the command -------------------------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "collect", *map(str, arguments)]


def collect(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_")}
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment
    )
    assert done.returncode == code and "Traceback" not in done.stderr, f"{done.stdout}\n{done.stderr}"
    return done


def given(*names: str) -> list[str]:
    return [word for name in names or PLACE for word in ("--constant", name)]


def test_a_dry_run_prints_the_events_and_says_who_is_down(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-token\n")
    (tmp_path / "token").chmod(0o600)
    with endpoints.endpoint({"/metrics": dcgm()}) as node:
        done = collect(
            "--url",
            f"{node.url}/metrics",
            "--mapping",
            "dcgm",
            *given(),
            "--dry-run",
            "--token-file",
            tmp_path / "token",
        )
        (event,) = map(json.loads, done.stdout.splitlines())
        assert len(event["data"]) == 2 and "up, 2 samples" in done.stderr
        assert node.headers["Authorization"] == "Bearer s3cret-token"
        done = collect(
            "--url",
            f"{node.url}/metrics",
            "--url",
            f"{node.url}/no",
            "--mapping",
            "dcgm",
            *given(),
            "--dry-run",
            code=1,
        )
        assert len(done.stdout.splitlines()) == 1 and f"{node.url}/no: down: found status 404" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mapping", "dcgm"], "found no target"),
        (["--url", "http://n/metrics"], "found no --mapping"),
        (["--url", "http://n/metrics", "--mapping", "dcmg"], "did you mean"),
        (["--url", "http://n/metrics", "--mapping", "dcgm", "--every", "fast"], "--every: found 'fast'"),
        (["--url", "http://n/metrics", "--mapping", "dcgm", "--every", "0s"], "--every: found '0s'"),
        (
            ["--url", "http://n/metrics", "--mapping", "dcgm", "--listen", "nowhere"],
            "--listen: found 'nowhere'",
        ),
        (["--url", "http://n/metrics", "--mapping", "dcgm", "--user", "admin"], "expected both or neither"),
        (
            ["--url", "http://n/metrics", "--mapping", "dcgm", "--ca-file", "/nowhere.pem"],
            "--ca-file: /nowhere.pem cannot be used",
        ),
        (["--url", "http://n/metrics", "--mapping", "dcgm", "--format", "promethus"], "did you mean"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_asked(arguments: list[str], told: str) -> None:
    assert told in collect(*arguments, *given(), "--dry-run", code=2).stderr


def test_what_a_source_does_not_say_is_named() -> None:
    stderr = collect(
        "--url", "http://n/m", "--mapping", "dcgm", *given(*PLACE[:3]), "--dry-run", code=2
    ).stderr
    assert "found nothing for cluster, sku of telemetry.gpu, expected --constant or --from-label" in stderr


def values(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in records_of(bootstrap, topic)]


def eventually(true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def test_it_goes_on_while_targets_come_go_and_fall_silent_and_ends_in_good_order(
    kafka: EmbeddedKafka, telemetry_topics: Any, tmp_path: Path
) -> None:
    telemetry_topics(1)
    port, path = free_port(), tmp_path / "targets.json"
    page = f"http://127.0.0.1:{port}"
    with (
        endpoints.endpoint({"/metrics": dcgm()}) as first,
        endpoints.endpoint({"/metrics": dcgm(host="node-0043")}) as second,
    ):
        path.write_text(json.dumps([{"targets": [first.address, f"127.0.0.1:{free_port()}"]}]))
        arguments = [
            "--targets",
            path,
            "--mapping",
            "dcgm",
            "--every",
            "1s",
            "--listen",
            f"127.0.0.1:{port}",
            *given(),
        ]
        process = subprocess.Popen(
            command(*arguments, "--bootstrap", kafka.bootstrap), stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

        def metric(text: str) -> bool:
            try:
                return text in httpx.get(f"{page}/metrics", trust_env=False, timeout=PATIENCE).text
            except httpx.TransportError:
                return False

        try:
            eventually(
                lambda: metric(
                    f'gigawatch_target_up{{mapping="dcgm",target="http://{first.address}/metrics"}} 1.0'
                ),
                "up",
            )
            eventually(lambda: metric('reason="unreachable"'), "the other is down")
            assert httpx.get(f"{page}/healthz", trust_env=False, timeout=PATIENCE).status_code == 200
            path.write_text("broken: [")
            time.sleep(1.2)
            path.write_text(json.dumps([{"targets": [second.address]}]))
            eventually(
                lambda: metric(f'target="http://{second.address}/metrics"}} 1.0'), "the new target is up"
            )
            assert not metric(f"http://{first.address}")
            second.answers["/metrics"] = b"nothing of this format {"
            eventually(lambda: metric('reason="not_prometheus_text"'), "it is down")
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert "cannot be taken over" in said and "target is down" in said and "Traceback" not in said
    found = values(kafka.bootstrap, "telemetry.gpu")
    assert {event["source"] for event in found} == {
        f"/collect/dcgm/{node.address}" for node in (first, second)
    }
    assert all(len(event["data"]) == 2 for event in found)
    assert len({(event["source"], event["id"]) for event in found}) == len(found)


def test_without_a_broker_or_its_topics_it_says_so_at_once(kafka: EmbeddedKafka) -> None:
    arguments = ["--url", "http://127.0.0.1:1/metrics", "--mapping", "dcgm", *given(), "--once"]
    assert (
        "no Kafka broker answers"
        in collect(*arguments, "--bootstrap", f"127.0.0.1:{free_port()}", code=3).stderr
    )
