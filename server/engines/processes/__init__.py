"""The engine's processes: activity, stall detection, and how they end with the server."""
