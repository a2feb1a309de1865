"""The settings, read from flags, `PROCTOR_*` environment variables and `proctor.toml`."""
