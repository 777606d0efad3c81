"""Everything that runs in one process, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.app.contract_watch import ContractWatch
from pipeline.app.failure import FirstFailure
from pipeline.history.housekeeping import Housekeeper
from pipeline.ledger.status import StatusFile
from pipeline.ledger.store import Ledger
from pipeline.notify.delays import Delays
from pipeline.notify.delivery import Delivery
from pipeline.notify.own_alerts import OwnAlerts
from pipeline.serve.own_status import OwnStatus
from pipeline.serve.supervisor import Servers
from pipeline.settings import Settings
from pipeline.stream.clocks import Clocks
from pipeline.stream.health import Health
from pipeline.stream.intake import Intake
from pipeline.stream.source import BatchSource

if TYPE_CHECKING:  # for its type alone: Faust is imported where it is wired
    from pipeline.app.single import Flow


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """In the order in which events and what follows from them pass; `flow` hands batches from the source to the intake."""

    settings: Settings
    contracts: ContractWatch
    clocks: Clocks
    failure: FirstFailure
    source: BatchSource
    flow: Flow
    intake: Intake
    ledger: Ledger
    delivery: Delivery
    delays: Delays
    health: Health
    own: OwnAlerts
    housekeeper: Housekeeper
    status: OwnStatus
    status_file: StatusFile
    servers: Servers
