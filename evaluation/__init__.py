"""Measures a running server over HTTP. Nothing here yet: a later milestone builds it."""
