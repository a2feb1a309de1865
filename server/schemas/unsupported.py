"""Request fields that the server does not support: which are ignored, and errors for the rest."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from pydantic_core import PydanticCustomError

MAX_NAME = 64
MAX_LISTED = 1024
"""The maximum length of the header that lists ignored fields; proxies limit all headers together to
a few KB."""

MAX_PATH = 128
SIMILARITY = 0.7
"""The minimum similarity to a known field for a name to count as a misspelling of it."""

ELLIPSIS = "..."
"""The end of a list of ignored fields that is cut off."""

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

NO_OP_VALUES: dict[str, tuple[Any, ...]] = {
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
"""Values without effect, mostly the defaults of other servers. They are accepted for fields that
are otherwise rejected."""

UNSUPPORTED = frozenset(
    {
        *NO_OP_VALUES,
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
"""Fields that belong elsewhere in the request."""


def is_ignored(name: str, value: object) -> bool:
    """Return whether a field is accepted and ignored, although it is not supported."""
    if value is None or name in IGNORED:
        return True
    # To Python, 0 is False and 1 is True; to JSON, 0 is 0.0.
    return any(
        value == no_op and isinstance(value, bool) is isinstance(no_op, bool)
        for no_op in NO_OP_VALUES.get(name, ())
    )


def describe_extra(known: Collection[str]) -> dict[str, Any]:
    """Return JSON schema keywords for all fields but the `known` ones."""
    patterns: dict[str, Any] = {
        _any_of(IGNORED.difference(known)): {"description": "Accepted and ignored."}
    }
    by_values: dict[str, list[str]] = {}
    for name in NO_OP_VALUES.keys() - known:
        by_values.setdefault(repr(NO_OP_VALUES[name]), []).append(name)
    for names in by_values.values():
        values = [*NO_OP_VALUES[names[0]], None]
        patterns[_any_of(names)] = {
            "description": "Not supported. Only values without effect are accepted.",
            "enum": values,
        }
    unknown = {"description": "Unknown fields are rejected.", "type": "null"}
    return {"patternProperties": patterns, "additionalProperties": unknown}


def describe_lenient_extra(rejected: Collection[str]) -> dict[str, Any]:
    """Return JSON schema keywords for a model that ignores all unknown fields but `rejected`."""
    ignored = {"description": "Ignored, and listed in the header `x-ignored-fields`."}
    if not rejected:
        return {"additionalProperties": ignored}
    unsupported = {"description": "Not supported. Must be null.", "type": "null"}
    return {
        "patternProperties": {_any_of(rejected): unsupported},
        "additionalProperties": ignored,
    }


def _any_of(names: Iterable[str]) -> str:
    return f"^({'|'.join(sorted(names))})$"


def ignored_names(extra: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the names of unsupported fields that are ignored and not null."""
    return [name for name, value in extra if name in IGNORED and value is not None]


def as_header(paths: Iterable[str]) -> str:
    """Return the paths of ignored fields as a header value of bounded length.

    The messages of a conversation often have the same extra fields: only the first
    occurrence of each is listed. The client chooses the names, so all but ASCII
    letters, digits and `_.-~[]$:@/` is percent-encoded.
    """
    distinct: dict[str, str] = {}
    for path in paths:
        distinct.setdefault(INDEX.sub("[]", path), quote(path[:MAX_PATH], safe="[]$:@/")[:MAX_PATH])
    listed: list[str] = []
    room = MAX_LISTED - len(ELLIPSIS)
    for path in distinct.values():
        room -= len(path) + len(", ")
        if room < 0:
            return ", ".join([*listed, ELLIPSIS])
        listed.append(path)
    return ", ".join(listed)


def rejection(name: str, known: Collection[str]) -> PydanticCustomError:
    """Return the validation error for a field that is unknown or not supported.

    Args:
        name: the name of the field.
        known: the names of the model's fields, to suggest one of them.
    """
    intended = next((each for each in known if name in each.split("_", 1)[1:]), None)
    if intended is None and name in MISPLACED:
        return _unknown(name, f" Use '{MISPLACED[name]}' instead.")
    if name in UNSUPPORTED:
        reason = "is not supported: remove it"
        return PydanticCustomError("field", "{reason}", {"field": name, "reason": reason})
    similar = intended or _most_similar(name, known, SIMILARITY)
    if similar is None and any(part in name.lower() for part in ("think", "reason", "budget")):
        similar = _most_similar(name, [each for each in known if "_" in each], 0.0)
    return _unknown(name, f" Did you mean '{similar}'?" if similar else "")


def _unknown(name: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("unknown_field", "Unknown field", {"field": name, "hint": hint})


def _most_similar(name: str, known: Collection[str], minimum: float) -> str | None:
    # The comparison takes time proportional to the product of the lengths, and the client chooses
    # the length of the name.
    return next(iter(get_close_matches(name[:MAX_NAME], known, 1, minimum)), None)
