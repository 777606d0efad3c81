"""Energy & carbon: megawatts, energy, its mix and its carbon, as metered by site."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import frame, that_read, variable
from pipeline.dashboards.panel_series import with_gaps
from pipeline.dashboards.panel_sql import BUCKET, chosen, in_days, in_time, of_region
from pipeline.dashboards.panels import (
    ENERGY,
    KILOGRAMS,
    MEGAWATTS,
    RATIO,
    SHARE,
    Properties,
    lay_out,
    lines,
    rows,
    stat,
)  # fmt: skip

INTENSITY = "suffix:g/kWh"
"""Grams of CO2 equivalent; Grafana has no unit for it."""
HERE = f"{in_time()} AND {of_region()} AND {chosen('site', 'site')}"
SITE = "concat_ws(' / ', region, site)"
WEIGHTED = "sum({0} * facility_megawatts) / nullif(sum(facility_megawatts) FILTER ({0} IS NOT NULL), 0)"
SITES = f"SELECT DISTINCT site FROM energy_1d WHERE {in_days()} ORDER BY 1"

TOTALS = f"""
    SELECT format('{{:,.3f}} MWh', sum(megawatt_hours)) AS energy, format('{{:,.1f}} kg', sum(carbon_kg)) AS carbon,
        format('{{:.0f}} %', 100 * {WEIGHTED.format("renewable_ratio")}) AS renewable,
        format('{{:,.0f}} g/kWh', {WEIGHTED.format("carbon_gco2e_per_kwh")}) AS intensity,
        format('{{:.3f}}', sum(facility_megawatts) / nullif(sum(it_megawatts), 0)) AS "PUE"
    FROM energy_mix WHERE {HERE}
"""
OVER = (
    "\"time\" + INTERVAL 15 MINUTE <= (SELECT min(watermark) FROM data_age WHERE topic = 'telemetry.energy')"
)
"""Quarters of an hour that are over: the energy of one that goes on is still growing."""


def by_site(value: str) -> str:
    """A series for each site."""
    return with_gaps(f"""
        SELECT {BUCKET} AS "time", {SITE} AS metric, {value} AS value
        FROM energy_mix WHERE {HERE} AND {OVER} GROUP BY ALL
    """)


POWER = with_gaps(f"""
        SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
        FROM (
            SELECT moment, label, unnest(['IT', 'facility']) AS what, unnest([it, facility]) AS value
            FROM (
                SELECT {BUCKET} AS moment, {SITE} AS label, avg(it_megawatts) AS it, avg(facility_megawatts) AS facility
                FROM energy_mix WHERE {HERE} AND {OVER} GROUP BY ALL))
    """)
PRICE = with_gaps(f"""
        SELECT window_start AS "time", {SITE} AS metric, avg(price_per_mwh_mean) AS value
        FROM energy_1h
        WHERE {in_time("window_start")} AND {of_region()} AND {chosen("site", "site")}
            AND price_per_mwh_mean IS NOT NULL
        GROUP BY ALL
    """)
TABLE = f"""
    SELECT concat_ws(' / ', provider, region, site) AS "where", avg(it_megawatts) AS "IT", avg(facility_megawatts) AS facility,
        sum(facility_megawatts) / nullif(sum(it_megawatts), 0) AS "PUE", sum(megawatt_hours) AS energy,
        {WEIGHTED.format("renewable_ratio")} AS renewable, {WEIGHTED.format("carbon_gco2e_per_kwh")} AS intensity,
        sum(carbon_kg) AS carbon, max("time") AS newest
    FROM energy_mix WHERE {HERE} GROUP BY ALL ORDER BY energy DESC NULLS LAST LIMIT 200
"""


def energy() -> dashboard.Dashboard:
    """What the sites draw, and what it is made of."""
    site = variable("site", "Site", SITES, "Sites with meters").refresh(
        dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    fields: dict[str, Properties] = {
        "energy": {"unit": ENERGY, "decimals": 3}, "carbon": {"unit": KILOGRAMS, "decimals": 1},
        "renewable": {"unit": SHARE, "decimals": 0}, "intensity": {"unit": INTENSITY, "decimals": 0},
        "PUE": {"unit": RATIO, "decimals": 3}, "IT": {"unit": MEGAWATTS, "decimals": 3},
        "facility": {"unit": MEGAWATTS, "decimals": 3},
    }  # fmt: skip
    quarters: dict[str, Any] = {"least": "15m", "legend": 400}
    panels = lay_out(
        (4, [
            (24, stat("This time range", "Energy of the whole sites at the mean power of each quarter of an hour, its "
                      "carbon, renewable share and intensity weighted by power, and the PUE", TOTALS)),
        ]),
        (11, [(24, lines("Power", "IT load and whole site, as metered", POWER, MEGAWATTS, zero=True, decimals=3, **quarters))]),
        (9, [(24, lines("PUE", "Facility ÷ IT power", by_site("sum(facility_megawatts) / nullif(sum(it_megawatts), 0)"),
                        RATIO, decimals=3, **quarters))]),
        (8, [(24, rows("Sites", "Over the time range, the greatest consumer first", TABLE, fields=fields,
                       times=["newest"],
                      widths={"IT": 110, "facility": 110, "PUE": 70, "energy": 130, "renewable": 90, "intensity": 100,
                               "carbon": 120}, wrapped=["where"]))]),
        (9, [(24, lines("Energy", "Of the whole site in each step of time", by_site("sum(megawatt_hours)"), ENERGY,
                        bars=True, decimals=3, **quarters))]),
        (9, [(24, lines("Carbon", "Of that energy, in CO2 equivalents", by_site("sum(carbon_kg)"), KILOGRAMS, bars=True,
                        decimals=1, **quarters))]),
        (9, [(24, lines("Renewable share", "Weighted by power", by_site(WEIGHTED.format("renewable_ratio")), SHARE,
                        zero=True, decimals=0, **quarters))]),
        (9, [(24, lines("Carbon intensity", "Weighted by power", by_site(WEIGHTED.format("carbon_gco2e_per_kwh")),
                        INTENSITY, zero=True, decimals=0, **quarters))]),
        (9, [(24, lines("Price of energy", "As the meters tell it, for a megawatt-hour, in the currency of the site's meters",
                        PRICE, "suffix:/MWh", least="1h", zero=True, decimals=2, legend=400))]),
    )  # fmt: skip
    return frame(
        "energy", "Energy & carbon", "Power, PUE, energy, renewable share and carbon of each site, as metered", panels,
        variables=[site], back="now-6h", concerning=that_read("energy"),
    )  # fmt: skip
