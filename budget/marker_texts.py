"""The texts of thinking markers that chat templates use."""

TEMPLATE_PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<ifm|think>", "</ifm|think>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|im_start|>think", "<|im_start|>answer"),
)
"""Markers to look for in a chat template if no parser is configured."""


def template_markers(template: str) -> tuple[str, str] | None:
    """Return the first pair of markers of which a chat template has both, or None."""
    pairs = (pair for pair in TEMPLATE_PAIRS if all(text in template for text in pair))
    return next(pairs, None)
