"""The migrations of the tables; `proctor.server.storage.migrate` runs them."""
