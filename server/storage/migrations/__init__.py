"""Alembic migrations of the tables, run by `proctor.server.storage.migrate`."""
