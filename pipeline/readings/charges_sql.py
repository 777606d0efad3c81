"""SQL for what a charge counts for in a tranche: one text for the ledger's reading and for the query that reproduces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.catalog import MONEY, MONEY_DECIMALS
from pipeline.rollup.quoting import literal

if TYPE_CHECKING:
    from pipeline.readings.tranche_spend import TrancheSpend

_ELEMENTS = """TRY_CAST("ContractApplied"::JSON->'$.Elements' AS JSON[])"""
_COMMITMENT = "coalesce(e->>'$.ContractCommitmentId', e->>'$.ContractCommitmentID')"
_NAMED = f"list_filter({_ELEMENTS}, lambda e: {_COMMITMENT} IS NOT NULL)"
_COST = f"TRY_CAST(e->>'$.ContractCommitmentAppliedCost' AS {MONEY})"


def amount_sql(spec: TrancheSpend) -> str:
    """The exact amount, in the charge's currency; NULL where the charge does not say what it counts for.

    Where ContractApplied names commitments, it is what was applied to the tranche's own, nothing if that is not among
    them; the whole cost where the only one named has no applied cost (a quantity may be all there is).
    """
    own = f'"{spec.cost_column}"::{MONEY}'
    if spec.commitment_id is None:
        return f"CASE WHEN len({_NAMED}) > 0 THEN 0::{MONEY} ELSE {own} END"
    mine = f"list_filter({_NAMED}, lambda e: {_COMMITMENT} = {literal(spec.commitment_id)})"
    unsaid = f"list_filter({mine}, lambda e: {_COST} IS NULL)"
    applied = f"TRY(list_sum(list_transform({mine}, lambda e: {_COST})))::{MONEY}"
    return (
        f"CASE WHEN coalesce(len({_NAMED}), 0) = 0 THEN {own} WHEN len({mine}) = 0 THEN 0::{MONEY} "
        f"WHEN len({unsaid}) = 0 THEN {applied} WHEN len({_NAMED}) = 1 THEN {own} END"
    )


def counts_sql(spec: TrancheSpend) -> list[str]:
    """The conditions for a charge to be the tranche's, beside its `match`.

    A purchase that funds a commitment is no consumption: one that names it (CommitmentDiscountId, ContractApplied), or
    any of a tranche that is a commitment itself.  What recurs is no prepayment, so it counts.
    """
    found = [f'"ChargeCategory" IN ({", ".join(map(literal, spec.categories))})']
    if spec.purchases == "fund" and "Purchase" in spec.categories:
        funds = "true"
        if spec.commitment_id is None:
            funds = f'("CommitmentDiscountId" IS NOT NULL OR coalesce(len({_NAMED}), 0) > 0)'
        recurs = """coalesce("ChargeFrequency", '') = 'Recurring'"""
        found.append(f"""("ChargeCategory" <> 'Purchase' OR {recurs} OR NOT {funds})""")
    return found


def sum_sql(column: str) -> str:
    """The exact sum; NULL where it has more digits than money may have.

    Whole units and the rest are added apart: a sum of DECIMAL(38, …) that overflows ends the whole statement.
    """
    whole, rest = f"sum(trunc({column})::HUGEINT)", f"sum({column} - trunc({column}))"
    most = 10 ** (38 - MONEY_DECIMALS) - 1
    return f"CASE WHEN abs({whole}) < {most} - count(*) THEN {whole} END::{MONEY} + {rest}"
