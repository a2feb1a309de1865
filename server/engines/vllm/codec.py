"""The `Codec` implementation over vLLM's renderer and detokenizers."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from vllm.exceptions import VLLMClientError
from vllm.renderers.base import BaseRenderer
from vllm.renderers.params import ChatParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer, IncrementalDetokenizer

from proctor.budget.processors.tokenizer.vocabulary import token_bytes
from proctor.server.engines.base import Prompt
from proctor.server.errors import EngineUnavailable

SPLIT = "\ue000"
"""A private-use character inserted into special tokens in user text, so that they are not
tokenized as such."""

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""The variables by which chat templates switch thinking; templates ignore unknown variables."""

END = "\ue001"
"""A private-use character appended to an unfinished message, to find its end in the prompt."""

CONTEXT_TOKENS = 32
"""How many tokens before those of a detokenizer it decodes with them. Few are enough to tell where
words and characters begin, and all tokens of a long prompt would block every stream."""

MAX_CHARACTERS = 2000
"""The length of prompts that are tokenized on the event loop, within half a millisecond; handing
them to a thread costs as much."""

CACHED_TEXTS = 64
MAX_CACHED_CHARACTERS = 200
"""Short texts are tokenized again and again: those that budgets inject, for every request."""

FILE_SETTINGS = ("vocab_file", "merges_file", "tokenizer_file", "name_or_path", "is_local")
"""Tokenizer settings that reveal paths of this machine."""

PROBE = ({"role": "user", "content": "hi"},)
PROBE_TOOL = {
    "type": "function",
    "function": {"name": "probe", "description": "", "parameters": {"type": "object"}},
}


class VllmDetokenizer:
    """A `Detokenizer` over vLLM's incremental detokenizer."""

    def __init__(self, tokenizer: Any, after: Sequence[int], special: bool) -> None:
        request = EngineCoreRequest(
            request_id="",
            prompt_token_ids=list(after[-CONTEXT_TOKENS:]),
            mm_features=None,
            sampling_params=SamplingParams(skip_special_tokens=not special),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        inner = IncrementalDetokenizer.from_new_request(tokenizer, request)
        self._inner = inner
        self._fast = inner if isinstance(inner, FastIncrementalDetokenizer) else None

    def push(self, token_ids: Sequence[int]) -> str:
        if self._fast is not None:
            # Not by `update`, which for the sake of stop strings copies all text for each token.
            return "".join([self._fast.decode_next(token) for token in token_ids])
        self._inner.update(list(token_ids), stop_terminated=False)
        return self._inner.get_next_output_text(finished=False, delta=True)

    def close(self) -> str:
        """Return the rest of the text; the bytes of an incomplete character are dropped."""
        return self._inner.get_next_output_text(finished=True, delta=True)


class VllmCodec:
    """The model's chat template and tokenizer, as vLLM renders them."""

    def __init__(self, renderer: BaseRenderer[Any], start_marker: str) -> None:
        self._renderer = renderer
        self._tokenizer = renderer.get_tokenizer()
        self._start_marker = start_marker
        self._renders_tools: bool | None = None
        special = sorted(map(str, self._tokenizer.get_added_vocab()), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special))) if special else None
        self._encode_cached = lru_cache(CACHED_TEXTS)(self._encode)
        self._closed = False

    def close(self) -> None:
        """Make `render` fail from now on, as the renderer's threads are about to end."""
        self._closed = True

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> Prompt:
        """Apply the chat template and tokenize the result; see `Codec` for the arguments.

        Special tokens that are spelled in a message or a tool are tokenized as plain text.

        Raises:
            ValueError: if the template rejects the messages.
            EngineUnavailable: if the engine has stopped.
        """
        kwargs: dict[str, Any] = (
            {"tools": [self._escape_special_tokens(tool) for tool in tools]} if tools else {}
        )
        escaped: list[Any] = [self._escape_special_tokens(message) for message in messages]
        may_think = False
        if continue_final_message:
            text, opened = await self._render_unfinished(escaped, kwargs, thinking)
        else:
            kwargs["add_generation_prompt"] = add_generation_prompt
            text = await self._apply(escaped, kwargs, thinking)
            opened = text.rstrip().endswith(self._start_marker)
            if add_generation_prompt and not thinking and not opened:
                may_think = text == await self._apply(escaped, kwargs, thinking=True)
        if len(text) <= MAX_CHARACTERS:
            ids = self._encode_rendered(text)
        else:
            # In a thread: a prompt can be megabytes long, and must not block other streams.
            ids = await asyncio.to_thread(self._encode_rendered, text)
        return Prompt(tuple(ids), opened, may_think)

    async def _apply(self, messages: list[Any], kwargs: dict[str, Any], thinking: bool) -> str:
        """Return the output of the template, with thinking switched on or off."""
        if self._closed:
            raise EngineUnavailable("the engine stopped")
        template_kwargs = {
            **dict.fromkeys(THINKING_SWITCHES, thinking),
            **kwargs,
            "tokenize": False,
        }
        try:
            _, prompt = await self._renderer.render_messages_async(
                messages, ChatParams(chat_template_kwargs=template_kwargs)
            )
        except (VLLMClientError, ValueError) as error:
            raise ValueError(str(error)) from error
        except Exception as error:
            if self._closed:
                raise EngineUnavailable("the engine stopped") from error
            raise
        return str(prompt.get("prompt"))

    async def _render_unfinished(
        self, messages: list[Any], kwargs: dict[str, Any], thinking: bool
    ) -> tuple[str, bool]:
        """Return the text up to the end of the last message, and whether that is in its thinking.

        A message with reasoning only is put after the generation prompt, as few templates render
        the reasoning of a message without content.
        """
        *before, last = messages
        if last["content"]:
            marked = {**last, "content": last["content"] + END}
            kwargs = {**kwargs, "add_generation_prompt": False}
            text = await self._apply([*before, marked], kwargs, thinking)
            if END not in text:
                raise ValueError("it omits the content of the last message")
            text = text[: text.rindex(END)]
            return text, text.rstrip().endswith(self._start_marker)
        kwargs = {**kwargs, "add_generation_prompt": True}
        text = await self._apply(before, kwargs, thinking=True)
        if not text.rstrip().endswith(self._start_marker):
            text += f"{self._start_marker}\n"
        return text + last.get("reasoning", ""), True

    async def renders_tools(self) -> bool:
        """Return whether a tool changes the output of the template."""
        if self._renders_tools is None:
            try:
                without_tools = await self.render(PROBE, thinking=True)
                with_tools = await self.render(PROBE, thinking=True, tools=[PROBE_TOOL])
                self._renders_tools = with_tools != without_tools
            except ValueError:  # `render` then reports the error for the request's own messages
                self._renders_tools = True
        return self._renders_tools

    @property
    def vocabulary_size(self) -> int:
        size: int = self._renderer.model_config.get_vocab_size()
        return size

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        if len(text) <= MAX_CACHED_CHARACTERS:
            return [*self._encode_cached(text, add_special_tokens)]
        return self._encode(text, add_special_tokens)

    def _encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def convert_ids_to_tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return each token as spelled in the vocabulary; unused ids give an empty string."""
        return [token or "" for token in self._tokenizer.convert_ids_to_tokens(list(token_ids))]

    def info(self) -> dict[str, Any]:
        """Return the tokenizer's settings as vLLM's server does, but without its file paths."""
        settings = getattr(self._tokenizer, "init_kwargs", None) or {}
        info = {
            name: _plain(value) for name, value in settings.items() if name not in FILE_SETTINGS
        }
        info["tokenizer_class"] = type(self._tokenizer).__name__
        template = getattr(self._tokenizer, "chat_template", None)
        return info | {"chat_template": template} if isinstance(template, str) else info

    def _encode_rendered(self, text: str) -> list[int]:
        return [token for part in text.split(SPLIT) for token in self._encode(part)]

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> VllmDetokenizer:
        return VllmDetokenizer(self._tokenizer, after, special)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token, or of its text if the tokenizer does not provide them."""
        if token < len(self._bytes):
            return self._bytes[token]
        return self.decode([token]).encode()

    @cached_property
    def _bytes(self) -> list[bytes]:
        return token_bytes(self._tokenizer)

    def _escape_special_tokens(self, value: Any) -> Any:
        """Insert `SPLIT` into special tokens in strings, so that they are encoded in two halves."""
        if isinstance(value, Mapping):
            return {
                self._escape_special_tokens(key): part
                if key == "role"
                else self._escape_special_tokens(part)
                for key, part in value.items()
            }
        if isinstance(value, list):
            return [self._escape_special_tokens(part) for part in value]
        if isinstance(value, str) and self._special is not None:
            return self._special.sub(
                lambda match: match[0][0] + SPLIT + match[0][1:],
                value.replace(SPLIT, "").replace(END, ""),
            )
        return value


def _plain(value: Any) -> Any:
    """Convert a tokenizer setting to plain JSON data; an added token becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | float) or _fits(value):
        return value
    return str(getattr(value, "content", value))


def _fits(value: object) -> bool:
    """Return whether this is an integer that fits 64 bits, the limit of orjson."""
    return isinstance(value, int) and abs(value) < 2**63
