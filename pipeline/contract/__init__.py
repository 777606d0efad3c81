"""What was promised: the contract model, and the loader that refuses a wrong file as a whole."""

from __future__ import annotations

from pipeline.contract.faults import Fault
from pipeline.contract.loader import check, load, load_all
from pipeline.contract.model import Contract, pipeline_alerts

__all__ = ["Contract", "Fault", "check", "load", "load_all", "pipeline_alerts"]
