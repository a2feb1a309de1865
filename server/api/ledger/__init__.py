"""The endpoints that read and write the ledger."""
