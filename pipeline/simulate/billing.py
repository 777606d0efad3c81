"""What the supplier charges: FOCUS 1.4 rows, one for each region, SKU and hour, and a tax row for each day.

Charges are issued 7 minutes after their period has ended; the history up to the start comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from pipeline.rollup.grid import DAY, HOUR
from pipeline.simulate.cloud_events import Message, Mode, cloud_event
from pipeline.simulate.fleet_spec import FleetSpec
from pipeline.simulate.noise import uniform

TOPIC, TYPE = "telemetry.billing", "billing.charge.v1"
ISSUED_AFTER = 420
_HISTORY_AFTER_MS = 10_000
_CENT = Decimal("0.01")


class _Charged(NamedTuple):
    region: str
    sku: str
    gpus: int


class Billing:
    """The supplier's billing: all charges of `spec` with periods from `history` before `start` on."""

    def __init__(self, spec: FleetSpec, seed: int, start_ms: int, mode: Mode = "structured") -> None:
        self.spec, self.seed, self.mode, self._start_ms = spec, seed, mode, start_ms
        gpus: Counter[tuple[str, str]] = Counter()
        for region in spec.regions:
            for cluster in region.clusters:
                gpus[region.region, cluster.sku] += cluster.gpus
        self.charged = [_Charged(*key, n) for key, n in gpus.items() if key[1] in spec.billing.prices]
        day = DAY
        self._next = (start_ms // 1000 - spec.billing.history) // day * day if self.charged else None

    def messages(self, t0_ms: int, t1_ms: int) -> Iterator[Message]:
        """All charges issued before `t1` that were not given out yet; the history comes after the first 10 s.

        By then telemetry flows, and a reader's clock stands at the start, not at the last charge before it.
        """
        if t1_ms <= self._start_ms + _HISTORY_AFTER_MS:
            return
        while self._next is not None and (self._next + 3600 + ISSUED_AFTER) * 1000 < t1_ms:
            hour, self._next = self._next, self._next + 3600
            for what in self.charged:
                yield self._usage(what, hour)
            if self.spec.billing.tax_rate and hour % DAY == 23 * HOUR:
                for what in self.charged:
                    yield self._tax(what, hour - 23 * 3600)

    def _quantity(self, what: _Charged, hour: int) -> Decimal:
        """GPU-hours of one hour; machines in repair are not charged, up to 3 % of them."""
        number = np.array([hour // 3600], np.uint64)
        lost = uniform(number, self.seed, 30, sum(what.region.encode()) + sum(what.sku.encode()))[0]
        return Decimal(round(what.gpus * (1 - 0.03 * float(lost)), 2)).quantize(_CENT)

    def _price(self, what: _Charged) -> Decimal:
        return Decimal(str(self.spec.billing.prices[what.sku]))

    def _usage(self, what: _Charged, hour: int) -> Message:
        quantity, price = self._quantity(what, hour), self._price(what)
        list_price = (price * Decimal(str(1 + self.spec.billing.list_markup))).quantize(Decimal("0.0001"))
        cost, list_cost = (quantity * price).quantize(_CENT), (quantity * list_price).quantize(_CENT)
        more = {
            "ContractedCost": str(cost), "ListCost": str(list_cost), "ContractedUnitPrice": str(price),
            "ListUnitPrice": str(list_price), "ConsumedQuantity": str(quantity), "ConsumedUnit": "GPU-Hours",
            "PricingQuantity": str(quantity), "PricingUnit": "GPU-Hours", "PricingCategory": "Committed",
            "ChargeFrequency": "Usage-Based", "SkuMeter": "GPU Hours",
            "x_scheduler": "reserved",
        }  # fmt: skip
        return self._charge(what, "Usage", hour, hour + 3600, cost, more)

    def _tax(self, what: _Charged, day: int) -> Message:
        hours = range(day, day + DAY, HOUR)
        untaxed = sum((self._quantity(what, hour) for hour in hours), Decimal(0)) * self._price(what)
        cost = (untaxed * Decimal(str(self.spec.billing.tax_rate))).quantize(_CENT)
        return self._charge(what, "Tax", day, day + DAY, cost, {"ChargeFrequency": "Recurring"})

    def _charge(
        self, what: _Charged, category: str, start: int, end: int, cost: Decimal, more: dict[str, str]
    ) -> Message:
        provider, issued_ms = self.spec.provider, (end + ISSUED_AFTER) * 1000
        month = datetime.fromtimestamp(start, UTC).replace(day=1, hour=0, minute=0, second=0)
        data = {
            "ServiceProviderName": provider, "HostProviderName": provider, "InvoiceIssuerName": provider,
            "RegionId": what.region, "SkuId": what.sku,
            "ResourceId": f"{provider}/{what.region}/capacity-block/{what.sku}",
            "ChargeCategory": category, "BillingCurrency": self.spec.currency,
            "BilledCost": str(cost), "EffectiveCost": str(cost),
            "ChargePeriodStart": _iso(start), "ChargePeriodEnd": _iso(end),
            "BillingPeriodStart": f"{month:%Y-%m-%dT%H:%M:%SZ}",
            "BillingPeriodEnd": f"{(month + timedelta(days=32)).replace(day=1):%Y-%m-%dT%H:%M:%SZ}",
            **more,
            "Tags": {"cost-centre": "network-planning"},
        }  # fmt: skip
        source = f"/gigawatch/sim/billing/{what.region}"
        id_ = f"{category.lower()}-{what.sku}-{start}"
        return cloud_event(TOPIC, TYPE, source, id_, issued_ms, data, self.mode)


def _iso(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
