"""The contracts in force, and whether their files say something else by now."""

from __future__ import annotations

from pathlib import Path

import structlog

from pipeline.catalog import Catalog
from pipeline.clauses import load_all
from pipeline.contract.loader import dimensions_of, fingerprint
from pipeline.contract.model import Contract, PipelineAlerts, pipeline_alerts
from pipeline.errors import ContractError

log = structlog.get_logger()


class ContractWatch:
    """`current`: the contracts of the file or directory `where`; `error`: why what stands there now is not in force.

    Raises ContractError when they cannot be loaded at first.
    """

    def __init__(self, where: Path | None, catalog: Catalog) -> None:
        self.catalog = catalog
        self._where, self._dimensions = where, dimensions_of(catalog)
        self._seen = fingerprint(where) if where else ""
        self.current: tuple[Contract, ...] = load_all(where, self._dimensions) if where else ()
        self.error: str | None = None

    @property
    def alerts(self) -> PipelineAlerts:
        """What the contracts say of the pipeline's own alerts."""
        return pipeline_alerts(self.current)

    def look(self) -> tuple[Contract, ...] | None:
        """The contracts as they are to be from now on, None while nothing has changed; then call `take`.

        Files whose bytes are the same are not parsed again.  What is wrong is refused, and the old ones go on.
        """
        if self._where is None or (found := fingerprint(self._where)) == self._seen:
            return None
        self._seen = found  # of before the files are parsed: what changes meanwhile is seen at the next look
        try:
            contracts = load_all(self._where, self._dimensions)
        except ContractError as error:
            if str(error) != self.error:
                log.error("the new contract is refused, the old one goes on", error=str(error))
            self.error = str(error)
            return None
        self.error = None
        same = [c.digest for c in contracts] == [c.digest for c in self.current]
        return None if same else contracts

    def take(self, contracts: tuple[Contract, ...]) -> None:
        """They are in force."""
        self.current = contracts
        log.info("contract taken over", contracts=[f"{c.id} {c.version}" for c in contracts])
