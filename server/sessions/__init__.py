"""Sessions: the calls of an agent that share limits, and what they have used."""
