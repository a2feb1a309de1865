"""What a run says, in sections, and how sections are written and drawn."""
