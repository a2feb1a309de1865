"""The ledger: one row for each admitted request, written in batches; and its reports."""
