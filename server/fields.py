"""Fields of a request that are not served: which are harmless, and what to say of the rest."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

MAX_NAME = 64

IGNORED = frozenset(
    {
        "include_obfuscation",
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""OpenAI's fields that do not change the answer: accepted, and listed in a header."""

MEANINGLESS: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "best_of": (1,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "suffix": ("",),
}
"""Values that ask for nothing, and so are accepted of fields that are refused otherwise."""

UNSUPPORTED = frozenset(
    {
        *MEANINGLESS,
        "audio",
        "refusal",
        "verbosity",
        "web_search_options",
    }
)
"""OpenAI's fields that would change the answer."""

MISPLACED = {
    "continuation_text": "thinking.continuation_text",
    "continuations": "thinking.continuations",
    "landing": "thinking.landing",
    "on_loop": "thinking.on_loop",
    "wrap_up_text": "thinking.wrap_up_text",
}
"""Fields that stand in another place."""


def is_ignored(name: str, value: object) -> bool:
    """Whether a field may be passed over although it is not served."""
    if value is None or name in IGNORED:
        return True
    # To Python, 0 is False and 1 is True.
    return any(value == each and type(value) is type(each) for each in MEANINGLESS.get(name, ()))


def describe_others() -> dict[str, Any]:
    """What a JSON schema says of fields beside its own."""
    patterns: dict[str, Any] = {
        f"^({'|'.join(sorted(IGNORED))})$": {"description": "Accepted and passed over."}
    }
    for name, values in MEANINGLESS.items():
        asks = "Not supported; values that ask for nothing are accepted."
        patterns[f"^{name}$"] = {"description": asks, "enum": [*values, None]}
    unknown = {"description": "Other fields are refused by name.", "type": "null"}
    return {"patternProperties": patterns, "additionalProperties": unknown}


def ignored(extra: Iterable[tuple[str, Any]]) -> list[str]:
    """Names of the fields that were given, mean something, and are passed over."""
    return [name for name, value in extra if name in IGNORED and value is not None]


def refusal(name: str, known: Collection[str]) -> str:
    """What to say of a field after its name: why it is refused, and what to do instead."""
    if name in MISPLACED:
        return f"is no field here: use '{MISPLACED[name]}'"
    if name in UNSUPPORTED:
        return "is not supported yet: leave it out"
    if any(part in name.lower() for part in ("think", "reason", "budget")):
        return f"is no field here: did you mean '{_nearest(name, known, 0.0)}'?"
    likely = _nearest(name, known, 0.6)
    return f"is no field here: did you mean '{likely}'?" if likely else "is no field here"


def _nearest(name: str, known: Collection[str], at_least: float) -> str | None:
    # Likeness takes time by the product of the lengths, and the client chooses the name's.
    return next(iter(get_close_matches(name[:MAX_NAME], known, 1, at_least)), None)
