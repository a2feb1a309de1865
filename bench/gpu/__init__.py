"""One command that measures what only a GPU can show."""
