"""TLS and SASL settings reach every client: topics, pipeline and simulator against a broker that asks for them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.errors import BrokerUnreachable, SettingsError
from pipeline.settings import load_settings
from pipeline.stream.topic_admin import TopicSpec, cluster_id, create_topics
from tests.patience import PATIENCE

PASSWORD = "let me in"
JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'username="gigawatch" password="{PASSWORD}" user_gigawatch="{PASSWORD}";'
)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    certificate, key = folder / "broker.pem", folder / "broker.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def one_line(pem: Path) -> str:
    """A PEM file as a value of a Java properties file."""
    return pem.read_text().strip().replace("\n", "\\n")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Settings for a broker whose listener wants TLS and a password."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = certificate(folder)
    plain, safe, controller = free_port(), free_port(), free_port()
    config = {
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SAFE://127.0.0.1:{safe},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SAFE://127.0.0.1:{safe}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SAFE:SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": one_line(pem),
        "ssl.keystore.key": one_line(key),
        "listener.name.safe.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.safe.plain.sasl.jaas.config": JAAS,
    }
    (folder / "password").write_text(PASSWORD + "\n")
    with EmbeddedKafka(folder / "kafka", port=plain, heap="256m", config=config):
        yield {
            "bootstrap": f"127.0.0.1:{safe}",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "gigawatch",
            "sasl_password_file": folder / "password",
            "ssl_cafile": pem,
        }


def test_the_tools_and_the_pipeline_speak_tls_and_sasl(secured: dict[str, Any]) -> None:
    settings = load_settings(None, **secured)
    client = settings.kafka_client()
    [done] = create_topics(settings.bootstrap, [TopicSpec("safe")], client)
    assert done.what == "created"

    async def there_and_back() -> bytes | None:
        producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, **client)
        consumer = AIOKafkaConsumer(
            "safe", bootstrap_servers=settings.bootstrap, auto_offset_reset="earliest", **client
        )
        await producer.start()
        await consumer.start()
        try:
            await producer.send_and_wait("safe", b"hello")
            return (await asyncio.wait_for(consumer.getone(), PATIENCE)).value
        finally:
            await consumer.stop()
            await producer.stop()

    assert asyncio.run(there_and_back()) == b"hello"


def test_a_wrong_password_or_a_stranger_is_one_message(secured: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("guess")
    stranger, _ = certificate(tmp_path)
    for wrong in ({"sasl_password_file": tmp_path / "password"}, {"ssl_cafile": stranger}):
        settings = load_settings(None, **{**secured, **wrong})
        with pytest.raises(BrokerUnreachable, match="security settings"):
            cluster_id(settings.bootstrap, settings.kafka_client(), 5.0)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = load_settings(None, security_protocol="SSL", ssl_cafile=tmp_path / "ca.pem")
    with pytest.raises(SettingsError, match=r"ca\.pem"):
        settings.kafka_client()
