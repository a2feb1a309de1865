"""API keys: how they are stored, recognized and limited."""
