-- Power, PUE, carbon and renewable share of each site as metered: a row for each quarter of an hour
--
-- needs: energy
--
-- time: Start of the quarter of an hour, UTC
-- provider: Supplier
-- region: Region
-- site: Site
-- it_megawatts: Mean IT power of its feeds, summed
-- facility_megawatts: Mean power of the whole site
-- pue: facility ÷ IT
-- megawatt_hours: Energy of the whole site at that mean, over the whole quarter of an hour
-- renewable_ratio: Share of it from renewable sources
-- carbon_gco2e_per_kwh: Carbon intensity, weighted by power
-- carbon_kg: Carbon of that energy
-- date: Day of the time, UTC: by a condition on it the files of other days are not opened
SELECT
    window_start AS "time",
    provider,
    region,
    site,
    sum(it_power_watts_mean) / 1e6 AS it_megawatts,
    sum(facility_power_watts_mean) / 1e6 AS facility_megawatts,
    sum(facility_power_watts_mean) / nullif(sum(it_power_watts_mean), 0) AS pue,
    sum(facility_power_watts_mean) / 1e6 / 4 AS megawatt_hours,
    sum(renewable_ratio_mean * facility_power_watts_mean)
        / nullif(sum(facility_power_watts_mean) FILTER (renewable_ratio_mean IS NOT NULL), 0) AS renewable_ratio,
    sum(carbon_gco2e_per_kwh_mean * facility_power_watts_mean)
        / nullif(sum(facility_power_watts_mean) FILTER (carbon_gco2e_per_kwh_mean IS NOT NULL), 0)
        AS carbon_gco2e_per_kwh,
    sum(carbon_gco2e_per_kwh_mean * facility_power_watts_mean) / 4e6 AS carbon_kg,
    date
FROM energy_15m
GROUP BY ALL
