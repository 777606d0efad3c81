"""The small ledger of tests/ledger, for what is published from it."""

from tests.ledger.conftest import catalog, kill, ledger, make_ledger, rows

__all__ = ["catalog", "kill", "ledger", "make_ledger", "rows"]
