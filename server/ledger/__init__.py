"""The ledger: one row for each request that was let in, and what it cost."""
