"""HTTP below the endpoints: protocol limits, bodies, CORS, server-sent events."""
