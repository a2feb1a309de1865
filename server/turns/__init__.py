"""Turns of a conversation: the records that carry their thinking tokens from call to call."""
