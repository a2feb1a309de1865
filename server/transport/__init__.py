"""HTTP below the endpoints: protocol limits, request bodies, CORS and server-sent events."""
