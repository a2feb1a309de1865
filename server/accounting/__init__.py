"""Cost of each request, reservations against a key's limits, and the ledger."""
