"""The compacted Kafka topic of alerts: key = identity, value = the change as JSON.

It gets every change, in order, however old: it is the record, and calls nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from pipeline.notify.destination import DeliveryRefused, Habits, NotAccepted
from pipeline.rules.alert_message import AlertMessage, to_json
from pipeline.stream.topic_admin import ALERTS

# A producer waits long for a broker (its own request timeout is 40 s); the lane's backoff is more patient.
ACK_TIMEOUT = 15.0


class AlertTopic:
    """A destination: the topic `gigawatch.alerts` behind a producer that somebody else starts and stops.

    The producer must be idempotent (which implies acks=all): then a retry inside the client neither doubles nor reorders.
    """

    habits = Habits(
        pages=False,
        batch=256,
        outage_note="Kafka takes no writes: the alert topic lags behind, and newer telemetry may be missing",
    )

    def __init__(
        self,
        producer: AIOKafkaProducer,
        *,
        topic: str = ALERTS,
        name: str = "kafka",
        timeout: float = ACK_TIMEOUT,
    ) -> None:
        self.name = name
        self._producer = producer
        self._topic = topic
        self._timeout = timeout

    async def send(self, changes: Sequence[AlertMessage], now: float) -> None:
        """Returns when every one is acknowledged by all in-sync replicas.

        Raises DeliveryRefused when a change is larger than the producer may send.  After a timeout the client may
        still bring the record to the topic: then it is there twice, before whatever is sent later.
        """
        try:
            async with asyncio.timeout(self._timeout):
                acks = [await self._hand_over(change) for change in changes]
                await asyncio.gather(*acks)
        except MessageSizeTooLargeError as fault:
            raise DeliveryRefused(f"topic {self._topic}: {fault}") from fault
        except TimeoutError:
            raise NotAccepted(
                f"topic {self._topic}: no acknowledgement within {self._timeout:g} s; is the broker well, and the "
                "topic there?"
            ) from None

    async def _hand_over(self, change: AlertMessage) -> Awaitable[object]:
        sent: Awaitable[object] = await self._producer.send(
            self._topic, value=to_json(_public(change)).encode(), key=change.identity.encode()
        )
        return sent


def _public(change: AlertMessage) -> AlertMessage:
    """Without what the pipeline measures its own delays from."""
    return msgspec.structs.replace(change, appended_at=msgspec.UNSET, due_at=msgspec.UNSET)
