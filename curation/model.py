"""The model that rows are written for: its tokens, thinking markers and chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from proctor.budget.marker_texts import template_markers
from proctor.budget.vocabulary import weights_of
from proctor.curation.errors import CurationError
from proctor.curation.storage import digest_of

ASKED, THOUGHT, ANSWERED = "PROCTOR-QUESTION", "PROCTOR-TRACE", "PROCTOR-ANSWER"
"""Stand-ins for a row's texts, to learn how a template puts them together."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands around the trace and the answer in a completion.

    Attributes:
        opening: the text between the prompt and the trace; empty if the prompt opens thinking.
        middle: the text between the trace and the answer, with the end marker.
        ending: the text after the answer: the end of the turn.
    """

    opening: str
    middle: str
    ending: str


class Model:
    """A model's tokenizer, with its markers.

    Attributes:
        unit: what is counted.
        markers: the texts of the start and end marker; None if none are set or known.
    """

    unit = "tokens"

    def __init__(self, tokenizer: Any, markers: tuple[str, str] | None) -> None:
        """Wrap a tokenizer of transformers.

        Args:
            tokenizer: the tokenizer.
            markers: the texts of the markers; None looks for known ones in the chat template.
        """
        self._tokenizer = tokenizer
        self.markers = markers or template_markers(tokenizer.chat_template or "")

    @classmethod
    def load(cls, name: str, start: str | None = None, end: str | None = None) -> "Model":
        """Load a tokenizer.

        Args:
            name: a folder, or a name on Hugging Face.
            start: the text of the start marker; None finds both in the chat template.
            end: the text of the end marker.

        Raises:
            CurationError: if it cannot be loaded.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise CurationError(
                f"model: its tokenizer requires transformers, which comes with an engine: {error}"
            ) from error
        if name.startswith((".", "/", "~")) and not Path(name).is_dir():
            raise CurationError(f"model: there is no folder {name}")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CurationError(f"model: {name} has no tokenizer: {reason}") from error
        return cls(tokenizer, (start, end) if start and end else None)

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, without special tokens around it."""
        return len(self._encode(text))

    def encode(self, text: str) -> tuple[Sequence[int], bytes]:
        """Return a text's tokens, and the weight in loop detection of each token id."""
        return self._encode(text), self._weights

    def render(self, question: str, trace: str, answer: str) -> tuple[str, str]:
        """Return the prompt and the completion in the chat template, with the markers."""
        layout = self.layout
        prompt = self._apply([{"role": "user", "content": question}], prompt=True)
        return prompt, f"{layout.opening}{trace}{layout.middle}{answer}{layout.ending}"

    @cached_property
    def layout(self) -> Layout:
        """How the texts of a completion are put together.

        Raises:
            CurationError: if the tokenizer has no chat template, or markers are not known.
        """
        if not self._tokenizer.chat_template:
            raise CurationError("model: its tokenizer has no chat template")
        if self.markers is None:
            raise CurationError(
                "model: its chat template has no known thinking markers: set thinking_start and "
                "thinking_end, as for `proctor serve`"
            )
        user = {"role": "user", "content": ASKED}
        prompt = self._apply([user], prompt=True)
        answer = {"role": "assistant", "content": ANSWERED}
        own = self._apply([user, answer | {"reasoning_content": THOUGHT}])
        if found := _own_layout(own, prompt, self.markers):
            return found
        plain = self._apply([user, answer])
        return _composed_layout(plain, prompt, self.markers)

    @cached_property
    def digest(self) -> str:
        """The digest of everything that rows depend on."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend else sorted(self._tokenizer.get_vocab().items())
        return digest_of([vocabulary, self._tokenizer.chat_template, self.markers])

    @cached_property
    def _weights(self) -> bytes:
        ids = range(len(self._tokenizer))
        return weights_of([self._tokenizer.decode([token]).encode() for token in ids])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def _apply(self, messages: list[dict[str, str]], *, prompt: bool = False) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # templates raise jinja2's errors and others
            raise CurationError(f"model: its chat template fails: {error}") from error
        return text


def model_name(name: str, folder: Path) -> str:
    """Return a model's folder, starting from the recipe's, or else its name on Hugging Face."""
    return str(folder / name) if (folder / name).is_dir() else name


def _own_layout(text: str, prompt: str, markers: tuple[str, str]) -> Layout | None:
    """Return the layout of a template that writes the thinking itself; None if it does not."""
    if not text.startswith(prompt):
        return None
    opening, thought, rest = text[len(prompt) :].partition(THOUGHT)
    middle, answered, ending = rest.partition(ANSWERED)
    start, end = markers
    if not (thought and answered and end in middle and start in prompt + opening):
        return None
    return Layout(opening, middle, ending.rstrip())


def _composed_layout(text: str, prompt: str, markers: tuple[str, str]) -> Layout:
    """Return the layout of a template that leaves the thinking out of a conversation."""
    start, end = markers
    ending = text.rpartition(ANSWERED)[2].rstrip()
    opened = prompt.rstrip().endswith(start)
    newline = "" if prompt.endswith("\n") else "\n"
    opening = newline if opened else f"{start}\n"
    # A marker that begins a turn, as s1's, is followed by one line end as all turns are.
    space = "\n" if end.startswith("<|im_start|>") else "\n\n"
    return Layout(opening, f"\n{end}{space}", ending)
