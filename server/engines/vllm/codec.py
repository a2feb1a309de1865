"""vLLM's renderer and detokenizers, behind the seam's `Codec`."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from vllm.exceptions import VLLMClientError
from vllm.renderers.base import BaseRenderer
from vllm.renderers.params import ChatParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from proctor.budget.processors.tokenizer_vocabulary import token_bytes
from proctor.server.engines.base import Prompt
from proctor.server.errors import EngineUnavailable

SPLIT = "\ue000"
"""A private-use character that marks where text must not be read as a special token."""

SWITCHES = ("enable_thinking", "thinking")
"""What chat templates call their switch of the thinking; they pass over what they do not know."""

END = "\ue001"
"""Another one, which marks where an unfinished message ends."""

OF_FILES = ("vocab_file", "merges_file", "tokenizer_file", "name_or_path", "is_local")
"""Settings of a tokenizer that tell of the machine that it was read on."""

PROBE = ({"role": "user", "content": "hi"},)
PROBE_TOOL = {
    "type": "function",
    "function": {"name": "probe", "description": "", "parameters": {"type": "object"}},
}


class VllmDetokenizer:
    """vLLM's incremental detokenizer, for one channel."""

    def __init__(self, tokenizer: Any, after: Sequence[int], special: bool) -> None:
        request = EngineCoreRequest(
            request_id="",
            prompt_token_ids=list(after),
            mm_features=None,
            sampling_params=SamplingParams(skip_special_tokens=not special),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self._inner = IncrementalDetokenizer.from_new_request(tokenizer, request)

    def push(self, token_ids: Sequence[int]) -> str:
        """See `Detokenizer`."""
        self._inner.update(list(token_ids), stop_terminated=False)
        return self._inner.get_next_output_text(finished=False, delta=True)

    def close(self) -> str:
        """See `Detokenizer`. Bytes of an unfinished character are dropped."""
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
        self._closed = False

    def close(self) -> None:
        """Render nothing more: the renderer's threads are about to end."""
        self._closed = True

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        answering: bool = True,
        continuing: bool = False,
    ) -> Prompt:
        """See `Codec`. Special tokens typed into a message or a tool stay plain text.

        Raises:
            EngineUnavailable: if the engine that it belongs to has stopped.
        """
        kwargs: dict[str, Any] = (
            {"tools": [self._escape_special_tokens(tool) for tool in tools]} if tools else {}
        )
        plain: list[Any] = [self._escape_special_tokens(message) for message in messages]
        may_think = False
        if continuing:
            text, opened = await self._unfinished(plain, kwargs, thinking)
        else:
            kwargs["add_generation_prompt"] = answering
            text = await self._apply(plain, kwargs, thinking)
            opened = text.rstrip().endswith(self._start_marker)
            if answering and not thinking and not opened:
                may_think = text == await self._apply(plain, kwargs, thinking=True)
        # A prompt can be megabytes long: other requests' streams must not wait for it.
        ids = await asyncio.to_thread(self._encode_rendered, text)
        return Prompt(tuple(ids), opened, may_think)

    async def _apply(self, messages: list[Any], kwargs: dict[str, Any], thinking: bool) -> str:
        """The text that the template makes, with its thinking switched on or off."""
        if self._closed:
            raise EngineUnavailable("the engine stopped")
        given = {**dict.fromkeys(SWITCHES, thinking), **kwargs, "tokenize": False}
        try:
            _, prompt = await self._renderer.render_messages_async(
                messages, ChatParams(chat_template_kwargs=given)
            )
        except (VLLMClientError, ValueError) as error:
            raise ValueError(str(error)) from error
        except Exception as error:
            if self._closed:
                raise EngineUnavailable("the engine stopped") from error
            raise
        return str(prompt.get("prompt"))

    async def _unfinished(
        self, messages: list[Any], kwargs: dict[str, Any], thinking: bool
    ) -> tuple[str, bool]:
        """The text up to where the last message ends, and whether that is inside its thinking.

        A thinking goes on where the template begins one; few templates show that of an answer
        that has not begun.
        """
        *before, last = messages
        if last["content"]:
            begun = {**last, "content": last["content"] + END}
            whole = {**kwargs, "add_generation_prompt": False}
            text = await self._apply([*before, begun], whole, thinking)
            if END not in text:
                raise ValueError("it leaves out the content of the last one")
            text = text[: text.rindex(END)]
            return text, text.rstrip().endswith(self._start_marker)
        prompted = {**kwargs, "add_generation_prompt": True}
        text = await self._apply(before, prompted, thinking=True)
        if not text.rstrip().endswith(self._start_marker):
            text += f"{self._start_marker}\n"
        return text + last.get("reasoning", ""), True

    async def renders_tools(self) -> bool:
        """See `Codec`. A template does if a tool makes a difference to what it renders."""
        if self._renders_tools is None:
            try:
                without = await self.render(PROBE, thinking=True)
                given = await self.render(PROBE, thinking=True, tools=[PROBE_TOOL])
                self._renders_tools = given != without
            except ValueError:  # it refuses them here, and will say why where they are wanted
                self._renders_tools = True
        return self._renders_tools

    @property
    def vocabulary_size(self) -> int:
        """See `Codec`."""
        size: int = self._renderer.model_config.get_vocab_size()
        return size

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """See `Codec`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Codec`."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """See `Codec`. Ids that the tokenizer does not use have no name."""
        return [name or "" for name in self._tokenizer.convert_ids_to_tokens(list(token_ids))]

    def info(self) -> dict[str, Any]:
        """See `Codec`: as vLLM's server tells it, but for what says where the files are."""
        set_to = getattr(self._tokenizer, "init_kwargs", None) or {}
        told = {name: _plain(value) for name, value in set_to.items() if name not in OF_FILES}
        told["tokenizer_class"] = type(self._tokenizer).__name__
        template = getattr(self._tokenizer, "chat_template", None)
        return told | {"chat_template": template} if isinstance(template, str) else told

    def _encode_rendered(self, text: str) -> list[int]:
        return [token for part in text.split(SPLIT) for token in self.encode(part)]

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> VllmDetokenizer:
        """See `Codec`."""
        return VllmDetokenizer(self._tokenizer, after, special)

    def token_bytes(self, token: int) -> bytes:
        """See `Codec`. A tokenizer that does not tell its bytes gives the token's text."""
        if token < len(self._bytes):
            return self._bytes[token]
        return self.decode([token]).encode()

    @cached_property
    def _bytes(self) -> list[bytes]:
        return token_bytes(self._tokenizer)

    def _escape_special_tokens(self, value: Any) -> Any:
        """Mark special tokens inside a message's texts, so that they are encoded in two halves."""
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
                lambda found: found[0][0] + SPLIT + found[0][1:],
                value.replace(SPLIT, "").replace(END, ""),
            )
        return value


def _plain(value: Any) -> Any:
    """A setting of a tokenizer as JSON has it; an added token is its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | float) or _fits(value):
        return value
    return str(getattr(value, "content", value))


def _fits(value: object) -> bool:
    """Whether this is an integer that JSON's writers take."""
    return isinstance(value, int) and abs(value) < 2**63
