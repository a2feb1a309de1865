"""Texts that stand in for an answer: messages of an API, and refusals."""

import re


def _beginning(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"\s*(?:{'|'.join(patterns)})", re.IGNORECASE)


API_ERROR = _beginning(
    r"error(?: code)?\s*:?\s*[45]\d\d\b",
    r"[45]\d\d (?:bad|internal|service|gateway|too many)",
    r"\{\s*['\"](?:error|detail)['\"]\s*:",
    r"traceback \(most recent call last\)",
    r"(?:api|openai|anthropic|google)[\w. ]{0,30}error\b",
    r"internal server error",
    r"rate limit (?:exceeded|reached)",
    r"resource_?exhausted",
    r"context_length_exceeded",
    r"request timed out",
    r"connection (?:error|reset|refused)",
    r"\[?(?:no|empty) (?:response|content)\]?\s*$",
)
"""Matches a text that begins as the message of a failed request."""

REFUSAL = _beginning(
    r"i['\u2019]?m (?:really |very )?sorry,? (?:but )?(?:i|as an)\b",
    r"sorry,? (?:but )?i can(?:no|['\u2019])t",
    r"i (?:can(?:no|['\u2019])t|am (?:unable|not able) to) "
    r"(?:help|assist|answer|provide|fulfil|comply|do that|generate|create|discuss)",
    r"as an? (?:ai|language model|large language model)\b",
)
"""Matches an answer that begins as a refusal."""
