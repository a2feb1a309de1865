"""Which replica a request goes to, and which are healthy: without I/O."""
