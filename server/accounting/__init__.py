"""The cost of requests, reservations against the limits of API keys, and the ledger."""
