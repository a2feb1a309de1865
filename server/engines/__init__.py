"""The seam to what generates tokens, and the engines behind it."""
