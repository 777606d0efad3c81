"""Energy & carbon: megawatts, energy, its mix and its carbon, as metered by site."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.serve.dashboards_frame import frame, variable
from pipeline.serve.dashboards_panels import (
    ENERGY,
    KILOGRAMS,
    MEGAWATTS,
    NUMBER,
    SHARE,
    Properties,
    data_age,
    lay_out,
    lines,
    rows,
    stat,
)  # fmt: skip
from pipeline.serve.dashboards_sql import BUCKET, chosen, in_days, in_time, of_region

INTENSITY = "suffix: g/kWh"
"""Grams of CO2 equivalent; Grafana has no unit for it."""
HERE = f"{in_time()} AND {of_region()} AND {chosen('site', 'site')}"
SITE = "concat_ws(' / ', region, site)"
WEIGHTED = "sum({0} * facility_megawatts) / nullif(sum(facility_megawatts) FILTER ({0} IS NOT NULL), 0)"
SITES = f"SELECT DISTINCT site FROM energy_1d WHERE {in_days()} ORDER BY 1"

TOTALS = f"""
    SELECT sum(megawatt_hours) AS energy, sum(carbon_kg) AS carbon,
        {WEIGHTED.format("renewable_ratio")} AS renewable, {WEIGHTED.format("carbon_gco2e_per_kwh")} AS intensity,
        sum(facility_megawatts) / nullif(sum(it_megawatts), 0) AS "PUE"
    FROM energy_mix WHERE {HERE}
"""


def by_site(value: str) -> str:
    """A series for each site."""
    return f"""
        SELECT {BUCKET} AS "time", {SITE} AS metric, {value} AS value
        FROM energy_mix WHERE {HERE} GROUP BY ALL ORDER BY 1
    """


POWER = f"""
    SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
    FROM (
        SELECT moment, label, unnest(['IT', 'facility']) AS what, unnest([it, facility]) AS value
        FROM (
            SELECT {BUCKET} AS moment, {SITE} AS label, avg(it_megawatts) AS it, avg(facility_megawatts) AS facility
            FROM energy_mix WHERE {HERE} GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
PRICE = f"""
    SELECT window_start AS "time", {SITE} AS metric, avg(price_per_mwh_mean) AS value
    FROM energy_1h
    WHERE {in_time("window_start")} AND {of_region()} AND {chosen("site", "site")}
        AND price_per_mwh_mean IS NOT NULL
    GROUP BY ALL ORDER BY 1
"""
TABLE = f"""
    SELECT provider, region, site, avg(it_megawatts) AS "IT", avg(facility_megawatts) AS facility,
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
        "energy": {"unit": ENERGY}, "carbon": {"unit": KILOGRAMS}, "renewable": {"unit": SHARE},
        "intensity": {"unit": INTENSITY}, "PUE": {"decimals": 3}, "IT": {"unit": MEGAWATTS, "decimals": 3},
        "facility": {"unit": MEGAWATTS, "decimals": 3},
    }  # fmt: skip
    panels = lay_out(
        (4, [
            (21, stat("This time range", "Energy of the whole sites at the mean power of each quarter of an hour, its "
                      "carbon, renewable share and intensity weighted by power, and the PUE", TOTALS, NUMBER,
                      fields=fields)),
            (3, data_age()),
        ]),
        (9, [
            (12, lines("Power", "IT load and whole site, as metered", POWER, MEGAWATTS, least="15m", zero=True,
                       decimals=3)),
            (12, lines("PUE", "Facility ÷ IT power", by_site("sum(facility_megawatts) / nullif(sum(it_megawatts), 0)"),
                       NUMBER, least="15m", decimals=3)),
        ]),
        (8, [
            (12, lines("Energy", "Of the whole site in each step of time", by_site("sum(megawatt_hours)"), ENERGY,
                       bars=True, least="15m")),
            (12, lines("Carbon", "Of that energy", by_site("sum(carbon_kg)"), KILOGRAMS, bars=True, least="15m")),
        ]),
        (8, [
            (8, lines("Renewable share", "Weighted by power", by_site(WEIGHTED.format("renewable_ratio")), SHARE,
                      least="15m", zero=True)),
            (8, lines("Carbon intensity", "Weighted by power", by_site(WEIGHTED.format("carbon_gco2e_per_kwh")), INTENSITY,
                      least="15m", zero=True)),
            (8, lines("Price of energy", "As the meters tell it, a megawatt-hour, in the site's currency", PRICE,
                      "suffix: /MWh", least="1h", zero=True)),
        ]),
        (8, [(24, rows("Sites", "Over the time range, the greatest consumer first", TABLE, fields=fields))]),
    )  # fmt: skip
    return frame(
        "energy", "Energy & carbon", "Power, PUE, energy, renewable share and carbon of each site, as metered", panels,
        variables=[site],
    )  # fmt: skip
