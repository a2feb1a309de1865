"""Alembic environment: runs the pending migrations on the caller's connection."""

from alembic import context

from proctor.server.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
