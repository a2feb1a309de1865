"""Fields of a request that are not served: which are harmless, and what to say of the rest."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

MAX_NAME = 64
MAX_LISTED = 1024
"""Characters of the header that lists ignored fields; proxies hold all headers in a few KB."""

MAX_PATH = 128
LIKELY = 0.7
"""How like a known name one must be to be taken for a misspelt one."""

MORE = "..."
"""Ends a list of ignored fields that is too long."""

INDEX = re.compile(r"\[\d+\]")

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
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "annotations": ([],),
    "bad_words": ([],),
    "best_of": (1,),
    "continue_final_message": (False,),
    "documents": ([],),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "modalities": (["text"],),
    "no_stop_trim": (False,),
    "priority": (0,),
    "return_hidden_states": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "stream_reasoning": (True,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing, mostly other servers' defaults, and so are accepted of fields that
are refused otherwise."""

UNSUPPORTED = frozenset(
    {
        *MEANINGLESS,
        "audio",
        "refusal",
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
    "budget_tokens": "thinking.budget_tokens",
    "continuous_usage_stats": "stream_options.continuous_usage_stats",
    "include_usage": "stream_options.include_usage",
    "usage": "stream_options.include_usage",
}
"""Fields that stand in another place."""


def is_ignored(name: str, value: object) -> bool:
    """Whether a field may be passed over although it is not served."""
    if value is None or name in IGNORED:
        return True
    # To Python, 0 is False and 1 is True; to JSON, 0 is 0.0.
    return any(
        value == each and isinstance(value, bool) is isinstance(each, bool)
        for each in MEANINGLESS.get(name, ())
    )


def describe_others(known: Collection[str]) -> dict[str, Any]:
    """What a JSON schema says of fields beside its own, which are `known`."""
    patterns: dict[str, Any] = {
        _any_of(IGNORED.difference(known)): {"description": "Accepted and passed over."}
    }
    asks = "Not supported; values that ask for nothing are accepted."
    by_values: dict[str, list[str]] = {}
    for name in MEANINGLESS.keys() - known:
        by_values.setdefault(repr(MEANINGLESS[name]), []).append(name)
    for names in by_values.values():
        values = [*MEANINGLESS[names[0]], None]
        patterns[_any_of(names)] = {"description": asks, "enum": values}
    unknown = {"description": "Other fields are refused by name.", "type": "null"}
    return {"patternProperties": patterns, "additionalProperties": unknown}


def describe_lenient(needed: Collection[str]) -> dict[str, Any]:
    """The same where other fields are passed over, but for those that are `needed`."""
    passed = {"description": "Passed over, and named in the header `x-ignored-fields`."}
    if not needed:
        return {"additionalProperties": passed}
    refused = {"description": "Not supported: refused unless it is null.", "type": "null"}
    return {"patternProperties": {_any_of(needed): refused}, "additionalProperties": passed}


def _any_of(names: Iterable[str]) -> str:
    return f"^({'|'.join(sorted(names))})$"


def ignored(extra: Iterable[tuple[str, Any]]) -> list[str]:
    """Names of the fields that were given, mean something, and are passed over."""
    return [name for name, value in extra if name in IGNORED and value is not None]


def as_header(paths: Iterable[str]) -> str:
    """The paths of ignored fields as a header's value, of bounded length.

    A conversation has the same members in many places: each is listed where it stands
    first. Names are the client's: what is no plain letter is percent-encoded.
    """
    listed: dict[str, str] = {}
    for path in paths:
        listed.setdefault(INDEX.sub("[]", path), quote(path[:MAX_PATH], safe="[]$:@/")[:MAX_PATH])
    kept: list[str] = []
    room = MAX_LISTED - len(MORE)
    for path in listed.values():
        room -= len(path) + len(", ")
        if room < 0:
            return ", ".join([*kept, MORE])
        kept.append(path)
    return ", ".join(kept)


def refusal(name: str, known: Collection[str]) -> str:
    """What to say of a field after its name: why it is refused, and what to do instead."""
    meant = next((each for each in known if name in each.split("_", 1)[1:]), None)
    if meant is None and name in MISPLACED:
        return f"is no field here: use '{MISPLACED[name]}'"
    if name in UNSUPPORTED:
        return "is not supported yet: leave it out"
    likely = meant or _nearest(name, known, LIKELY)
    if likely is None and any(part in name.lower() for part in ("think", "reason", "budget")):
        likely = _nearest(name, [each for each in known if "_" in each], 0.0)
    return f"is no field here: did you mean '{likely}'?" if likely else "is no field here"


def _nearest(name: str, known: Collection[str], at_least: float) -> str | None:
    # Likeness takes time by the product of the lengths, and the client chooses the name's.
    return next(iter(get_close_matches(name[:MAX_NAME], known, 1, at_least)), None)
