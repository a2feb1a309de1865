"""The endpoints that generate: from the body of a request to its response."""
