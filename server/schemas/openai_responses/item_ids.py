"""The IDs of items: they contain that of their response, by which an item is found."""

PREFIX = "resp_"
"""The prefix of the IDs of responses."""

DIGITS = 32
"""The hexadecimal digits of the ID of a response."""


def item_id(kind: str, response_id: str, index: int) -> str:
    """Return the ID of an item.

    Args:
        kind: the prefix of its kind of items.
        response_id: the ID of its response.
        index: its index in the output.
    """
    return f"{kind}_{response_id.removeprefix(PREFIX)}{index:02x}"


def response_of(item: str) -> str:
    """Return the ID of the response that an item belongs to, if the item is one of ours."""
    return PREFIX + item.partition("_")[2][:DIGITS]
