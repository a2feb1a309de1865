"""Log probabilities in the formats of OpenAI's APIs and of vLLM."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from proctor.server.engines.base import TokenLogprob
from proctor.server.schemas import responses
from proctor.server.schemas.responses import Candidate, PromptCandidate, TokenScore

TokenBytes = Callable[[int], bytes]


def token_text(token: int, token_bytes: TokenBytes) -> str:
    """Return the text of a token, with U+FFFD for parts of characters."""
    return token_bytes(token).decode(errors="replace")


def token_score(score: TokenLogprob, token_bytes: TokenBytes) -> TokenScore:
    """Return the log probability of a token in the format of OpenAI's chat API."""
    top = [_candidate(token, logprob, token_bytes) for token, logprob in score.top]
    return {**_candidate(score.token, score.logprob, token_bytes), "top_logprobs": top}


def _candidate(token: int, logprob: float, token_bytes: TokenBytes) -> Candidate:
    text = token_bytes(token)
    return {"token": text.decode(errors="replace"), "logprob": logprob, "bytes": [*text]}


def prompt_logprobs(
    scores: Sequence[TokenLogprob], num_top: int, token_bytes: TokenBytes
) -> responses.PromptLogprobs:
    """Return the log probabilities of a prompt in vLLM's format.

    Each entry is keyed by token id; the entry of the first token, which follows nothing, is null.

    Args:
        scores: log probabilities of the prompt's tokens, from the second token on.
        num_top: number of most likely tokens to return in addition to the prompt's own.
        token_bytes: returns the bytes of a token.
    """

    def candidate(token: int, logprob: float, rank: int) -> PromptCandidate:
        return {"logprob": logprob, "rank": rank, "decoded_token": token_text(token, token_bytes)}

    def position(score: TokenLogprob) -> dict[str, PromptCandidate]:
        candidates = {str(score.token): candidate(score.token, score.logprob, score.rank)}
        for rank, (token, logprob) in enumerate(score.top[:num_top], 1):
            candidates.setdefault(str(token), candidate(token, logprob, rank))
        return candidates

    return [None, *map(position, scores)]


class TextOffsets:
    """The offsets of tokens in their text, in Unicode code points.

    A token that begins inside a character has the offset of the character.

    Attributes:
        end: the offset after the last token.
    """

    def __init__(self, token_bytes: TokenBytes, invisible: Collection[int], start: int = 0) -> None:
        """Start before the first token.

        Args:
            token_bytes: returns the bytes of a token.
            invisible: tokens that are not part of the text.
            start: the offset of the first token.
        """
        self._token_bytes = token_bytes
        self._invisible = invisible
        self.end = start

    def next(self, token: int) -> int:
        """Return the offset of the next token."""
        text = b"" if token in self._invisible else self._token_bytes(token)
        begins_inside = bool(text) and _is_continuation(text[0])
        offset = max(0, self.end - begins_inside)
        self.end += sum(not _is_continuation(byte) for byte in text)
        return offset


def _is_continuation(byte: int) -> bool:
    """Return whether a byte of UTF-8 continues a character."""
    return byte & 0xC0 == 0x80


class TokenRow(NamedTuple):
    """The log probabilities of one token; None for the first token of a prompt."""

    token: str
    logprob: float | None
    top: dict[str, float] | None
    offset: int


class TextLogprobs:
    """The log probabilities of one choice's text, in OpenAI's legacy format."""

    def __init__(
        self, num_top: int, token_bytes: TokenBytes, invisible: Collection[int], echo: str = ""
    ) -> None:
        """Start before the first token.

        Args:
            num_top: number of most likely tokens to return in addition to the sampled one.
            token_bytes: returns the bytes of a token.
            invisible: tokens that are not part of the text.
            echo: the prompt, if the text begins with it.
        """
        self._num_top = num_top
        self._token_bytes = token_bytes
        self._echo = echo
        self._offsets = TextOffsets(token_bytes, invisible, len(echo))

    def prompt_rows(
        self, token_ids: Sequence[int], scores: Sequence[TokenLogprob]
    ) -> list[TokenRow]:
        """Return the rows of the echoed prompt, whose first token has no score.

        The text of the prompt does not include tokens that the tokenizer has added in front of
        it. So offsets are counted from the end of the text, and those of the first tokens are 0.
        """
        offsets = TextOffsets(self._token_bytes, ())
        unaligned = [offsets.next(token) for token in token_ids]
        shift = len(self._echo) - offsets.end
        first, *rest = [max(0, offset + shift) for offset in unaligned]
        rows: list[TokenRow] = [
            TokenRow(token_text(token_ids[0], self._token_bytes), None, None, first)
        ]
        return rows + [self._row(score, offset) for score, offset in zip(scores, rest, strict=True)]

    def next_rows(self, scores: Sequence[TokenLogprob]) -> list[TokenRow]:
        """Return the rows of the next tokens."""
        return [self._row(score, self._offsets.next(score.token)) for score in scores]

    def _row(self, score: TokenLogprob, offset: int) -> TokenRow:
        token = token_text(score.token, self._token_bytes)
        top = {token: score.logprob}
        for other, logprob in score.top[: self._num_top]:
            top.setdefault(token_text(other, self._token_bytes), logprob)
        return TokenRow(token, score.logprob, top, offset)


def columns(rows: Sequence[TokenRow]) -> responses.TextLogprobs:
    """Return rows as the `logprobs` object of OpenAI's legacy format, one list per column."""
    return {
        "tokens": [row.token for row in rows],
        "token_logprobs": [row.logprob for row in rows],
        "top_logprobs": [row.top for row in rows],
        "text_offset": [row.offset for row in rows],
    }
