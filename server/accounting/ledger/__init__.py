"""The ledger: one row per admitted request, written in batches, reported by `proctor ledger`."""
