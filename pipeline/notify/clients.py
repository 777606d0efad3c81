"""The clients that the pipeline writes through, to Kafka and by HTTP, and the destinations that the settings name."""

from __future__ import annotations

import asyncio

import httpx
import structlog
from aiokafka import AIOKafkaProducer

from pipeline.notify.alertmanager import Alertmanager
from pipeline.notify.destination import Destination
from pipeline.notify.kafka_topic import AlertTopic
from pipeline.notify.webhook import Webhook, authorization
from pipeline.settings import Settings, read_secret

log = structlog.get_logger()


class Clients:
    """Made on the event loop that they are used on: `open` first, `close` at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.http = httpx.AsyncClient()
        self.producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap, enable_idempotence=True, compression_type="lz4",
            max_request_size=2 * 2**20, max_batch_size=2**18, linger_ms=5, **settings.kafka_client(),
        )  # fmt: skip

    async def open(self) -> list[Destination]:
        """Connect; the destinations."""
        settings = self._settings
        found: list[Destination] = []
        if settings.alertmanager:
            found.append(Alertmanager(settings.alertmanager, self.http))
        if settings.webhook:
            token = read_secret(settings.webhook_token_file) if settings.webhook_token_file else None
            found.append(
                Webhook(
                    settings.webhook,
                    self.http,
                    external_url=settings.public_url or "",
                    headers=authorization(token),
                )
            )
        if settings.alerts_topic:
            found.append(AlertTopic(self.producer, topic=settings.alerts_topic))
        await self.producer.start()
        return found

    async def close(self) -> None:
        """What is under way gets three seconds."""
        try:
            async with asyncio.timeout(3):
                await self.producer.stop()
                await self.http.aclose()
        except TimeoutError:
            log.warning(
                "the broker did not take the last writes within 3 s; what was not accepted stays in the outbox"
            )
