"""Chat templates that render thinking."""

import json
from typing import Any

from proctor.training.examples import Markers

PROBE = "7 and 5 make 12."
CONVERSATION = (
    {"role": "user", "content": "What is 7 + 5?"},
    {"role": "assistant", "content": "12", "reasoning_content": PROBE},
)

BEFORE = """\
{#- The thinking of the turn after the last user message; that of earlier turns is left out. -#}
{%- set rewritten = namespace(messages=[], last_user=-1) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set rewritten.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.content is string -%}
{%- set content = message.content.split(END)[-1].lstrip('\\n') -%}
{%- if loop.index0 > rewritten.last_user and message.reasoning_content -%}
{%- set content = START + '\\n' + message.reasoning_content + '\\n' + END + '\\n\\n' + content -%}
{%- endif -%}
{%- set rewritten.messages = rewritten.messages + [dict(message, content=content)] -%}
{%- else -%}
{%- set rewritten.messages = rewritten.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = rewritten.messages -%}
"""

# Begins without a dash, which would strip whitespace that the template above ends with.
AFTER = """\
{% if add_generation_prompt -%}
{{- START + '\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}{{- '\\n' + END + '\\n\\n' -}}\
{%- endif -%}
{%- endif -%}
"""


def with_thinking(template: str, markers: Markers) -> str:
    r"""Return a chat template that renders thinking, around one that does not.

    - A turn's `reasoning_content` is written before its content, between the markers.
    - The generation prompt opens the thinking; with `enable_thinking=false` it also closes it.
    """

    def spell(part: str) -> str:
        # Jinja reads JSON's strings.
        start, end = (json.dumps(text, ensure_ascii=False) for text in (markers.start, markers.end))
        return part.replace("START", start).replace("END", end)

    return spell(BEFORE) + template.removesuffix("\n") + spell(AFTER)


def renders_thinking(tokenizer: Any, markers: Markers) -> bool:
    """Return whether the tokenizer's chat template writes a turn's thinking between the markers."""
    text: str = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    start, thinking, end = (text.rfind(part) for part in (markers.start, PROBE, markers.end))
    return 0 <= start < thinking < end


def opens_thinking(tokenizer: Any, markers: Markers) -> bool:
    """Return whether the tokenizer's generation prompt ends with the start marker."""
    text: str = tokenizer.apply_chat_template(
        CONVERSATION[:1], tokenize=False, add_generation_prompt=True
    )
    return text.rstrip().endswith(markers.start)


def ensure_thinking(tokenizer: Any, markers: Markers) -> bool:
    """Make the tokenizer's chat template know thinking; return whether it had to be changed.

    It knows thinking if it renders a turn's, or if it opens it in the generation prompt: many such
    templates leave out the thinking of all turns.

    Raises:
        ValueError: if there is no chat template, or it cannot be changed.
    """
    if not tokenizer.chat_template:
        raise ValueError("the model's tokenizer has no chat template")
    if renders_thinking(tokenizer, markers) or opens_thinking(tokenizer, markers):
        return False
    tokenizer.chat_template = with_thinking(tokenizer.chat_template, markers)
    if not renders_thinking(tokenizer, markers):
        raise ValueError(
            "the model's chat template rewrites the content of a turn: write one that renders "
            f"reasoning_content between {markers.start!r} and {markers.end!r} into the tokenizer"
        )
    return True
