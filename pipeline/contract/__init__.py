"""What was promised: the contract model, and a loader that refuses a wrong file as a whole."""

from __future__ import annotations

from pipeline.contract.faults import Fault
from pipeline.contract.model import Contract, pipeline_alerts

__all__ = ["Contract", "Fault", "pipeline_alerts"]
