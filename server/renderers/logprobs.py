"""Log probabilities in the shapes of OpenAI's older API and of vLLM."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from proctor.server.engines.base import TokenLogprob

TokenBytes = Callable[[int], bytes]


def spelled(token: int, token_bytes: TokenBytes) -> str:
    """The text of a token, which may be part of a character."""
    return token_bytes(token).decode(errors="replace")


def prompt_logprobs(
    scores: Sequence[TokenLogprob], most: int, token_bytes: TokenBytes
) -> list[Any]:
    """VLLM's list for a prompt: by token id, and null for the first token, which nothing precedes.

    Args:
        scores: of the prompt's tokens but the first.
        most: how many of the likeliest tokens to tell beside the prompt's own.
        token_bytes: the bytes of a token.
    """

    def candidate(token: int, logprob: float, rank: int) -> dict[str, Any]:
        return {"logprob": logprob, "rank": rank, "decoded_token": spelled(token, token_bytes)}

    def position(score: TokenLogprob) -> dict[str, Any]:
        found = {str(score.token): candidate(score.token, score.logprob, score.rank)}
        for rank, (token, logprob) in enumerate(score.top[:most], 1):
            found.setdefault(str(token), candidate(token, logprob, rank))
        return found

    return [None, *map(position, scores)]


class TextOffsets:
    """Where in a text each of its tokens begins, in Unicode code points.

    A token that is part of a character begins where the character does.

    Attributes:
        at: where the next one begins.
    """

    def __init__(self, token_bytes: TokenBytes, silent: Collection[int], at: int = 0) -> None:
        """Begin at an offset.

        Args:
            token_bytes: the bytes of a token.
            silent: tokens that the text does not hold.
            at: where the first token begins.
        """
        self._token_bytes = token_bytes
        self._silent = silent
        self.at = at

    def next(self, token: int) -> int:
        """Where the next token begins."""
        text = b"" if token in self._silent else self._token_bytes(token)
        inside = bool(text) and _continues(text[0])
        begins = max(0, self.at - inside)
        self.at += sum(not _continues(byte) for byte in text)
        return begins


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 continues a character."""
    return byte & 0xC0 == 0x80


Row = tuple[str, float | None, dict[str, float] | None, int]
"""What there is to tell of one token, in the order of `COLUMNS`."""

COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


class TextLogprobs:
    """Log probabilities of one choice's text, as OpenAI's older API tells them."""

    def __init__(
        self, most: int, token_bytes: TokenBytes, silent: Collection[int], echo: str = ""
    ) -> None:
        """Begin before the first token.

        Args:
            most: how many of the likeliest tokens to tell beside the one that came.
            token_bytes: the bytes of a token.
            silent: tokens that the text does not hold.
            echo: the prompt, where the text begins with it.
        """
        self._most = most
        self._token_bytes = token_bytes
        self._echo = echo
        self._offsets = TextOffsets(token_bytes, silent, len(echo))

    def of_prompt(self, token_ids: Sequence[int], scores: Sequence[TokenLogprob]) -> list[Row]:
        """Rows of the echoed prompt; its first token has no score, as nothing precedes it.

        Tokens that its tokenizer has put before it have no place in it: the last ones
        are where the text says, the first ones at its beginning.
        """
        offsets = TextOffsets(self._token_bytes, ())
        begins = [offsets.next(token) for token in token_ids]
        shift = len(self._echo) - offsets.at
        first, *rest = [max(0, at + shift) for at in begins]
        rows: list[Row] = [(spelled(token_ids[0], self._token_bytes), None, None, first)]
        return rows + [self._row(score, at) for score, at in zip(scores, rest, strict=True)]

    def of_next(self, scores: Sequence[TokenLogprob]) -> list[Row]:
        """Rows of the tokens that come next."""
        return [self._row(score, self._offsets.next(score.token)) for score in scores]

    def _row(self, score: TokenLogprob, offset: int) -> Row:
        token = spelled(score.token, self._token_bytes)
        top = {token: score.logprob}
        for other, logprob in score.top[: self._most]:
            top.setdefault(spelled(other, self._token_bytes), logprob)
        return token, score.logprob, top, offset


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows in OpenAI's older shape, a list for each thing that there is to tell."""
    return {name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)}
