"""Response bodies and stream chunks, in the shape of each API."""
