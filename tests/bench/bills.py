"""`import focus`: a bill of a million rows, as CSV, read, checked and written to Kafka by a process of its own."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parts import Bench, Figures

HEAD = (
    "AvailabilityZone,BilledCost,BillingAccountId,BillingAccountName,BillingCurrency,BillingPeriodEnd,BillingPeriodStart,"
    "ChargeCategory,ChargeClass,ChargeDescription,ChargeFrequency,ChargePeriodEnd,ChargePeriodStart,ConsumedQuantity,"
    "ConsumedUnit,ContractedCost,ContractedUnitPrice,EffectiveCost,InvoiceIssuerName,ListCost,ListUnitPrice,PricingCategory,"
    "PricingQuantity,PricingUnit,ProviderName,PublisherName,RegionId,RegionName,ResourceId,ResourceName,ServiceCategory,"
    "ServiceName,SkuId,SkuPriceId,SubAccountId,SubAccountName,Tags\n"
)
"""The columns of FOCUS 1.0 that suppliers fill; a row has about 750 bytes, as in the Foundation's sample."""


def write_bill(path: Path, rows: int) -> None:
    """A month of `rows` charges: costs of eleven decimals, some with an exponent, tags in every row."""
    tags = '"{""application"": ""Planning"", ""environment"": ""production"", ""cost-centre"": ""network""}"'
    with path.open("w", encoding="utf-8") as file:
        file.write(HEAD)
        for n in range(rows):
            day, cost = n % 30 + 1, f"{n % 9973}E-7" if n % 50 == 0 else f"{n % 997}.{n % 99991:011d}"
            start, end = f"2026-11-{day:02d} 00:00:00", f"2026-11-{day:02d} 01:00:00"
            file.write(
                f'NULL,{cost},123456789012,Northline,USD,"2026-12-01 00:00:00","2026-11-01 00:00:00",Usage,NULL,'
                f'"$7.50 per GPU hour of reserved capacity in eu-west, tier {n % 7}",Usage-Based,"{end}","{start}",'
                f'{n % 89}.000000000000000,Hours,{cost},7.50000000000,{cost},"Halcyon Cloud, Inc.",{cost},"10.5",Standard,'
                f"{n % 89}.00000000000,Hours,Halcyon Cloud,Halcyon Cloud,eu-west-{n % 4},EU West {n % 4},"
                f"hrn:halcyon:compute:eu-west:347410479675:block/{n:012d}-{n % 7919:08x},NULL,Compute,GPU Capacity,"
                f"ND_H100_v{n % 40},ND_H100_v{n % 40}.JRTCKXETXF.6YS6EN2CT7,4388391{n % 9973:05d},Zenith Eclipse,{tags}\n"
            )


def figures(bench: Bench) -> Figures:
    """Seconds from the start of the command until Kafka has all rows, and the memory of its process."""
    path, rows = bench.scratch / "bill.csv", bench.sizes.bill_rows
    write_bill(path, rows)
    with bench.broker("bills") as kafka:
        out = bench.scratch / "import.json"
        with bench.process(
            [str(Path(__file__)), str(path), kafka.bootstrap, str(out)], "import.log"
        ) as process:
            if process.wait(900):
                raise RuntimeError((bench.scratch / "import.log").read_text(errors="replace")[-3000:])
    path.unlink()
    found: dict[str, Any] = json.loads(out.read_text())
    bench.say(
        f"a bill of {rows:,} rows in {found['import_seconds']:.1f} s, {found['import_peak_rss_mb']:,.0f} MB"
    )
    return {"import_rows": rows, **found, "import_rows_per_s": rows / found["import_seconds"]}


def main(path: str, bootstrap: str, out: str) -> None:
    """The command itself, in this process, which is measured."""
    began = time.monotonic()
    from pipeline.cli import app

    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the report is long, and nobody reads it
    app(["import", "focus", path, "--bootstrap", bootstrap, "--json"], standalone_mode=False)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "import_seconds": time.monotonic() - began,
        "import_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "import_peak_rss_mb": usage.ru_maxrss / 1024,
    }
    Path(out).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
