"""The published history: Parquet files that follow from the ledger, written whole, merged, checked, asked."""
