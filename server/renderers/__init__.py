"""Response bodies and stream chunks, in the format of each API."""
