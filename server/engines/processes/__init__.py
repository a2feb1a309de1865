"""The engine's processes: liveness, and how they end with their server."""
