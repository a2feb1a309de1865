"""What a budget must know of the text of tokens: where characters and sentences end."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

LONGEST_TAIL = 3
"""Bytes of a UTF-8 character after its first one, at most."""

TERMINATORS = ".!?…。！？؟।"  # noqa: RUF001
CLOSERS = "\"'`*_)]}»”’」』）"  # noqa: RUF001
"""What may follow a terminator and still belong to its sentence."""

MOST_LETTERS = 6

ENDS, ENDS_AFTER_NO_DIGIT, IS_DIGIT = 1, 2, 4

ATOM = 256
"""Symbols from here on stand for one token each; below are bytes."""


def _beginnings() -> Iterator[bytes]:
    """Give every proper beginning of a terminator of several bytes, nothing at all first."""
    yield b""
    for terminator in TERMINATORS:
        encoded = terminator.encode()
        yield from (encoded[:length] for length in range(1, len(encoded)))


PARTIAL = tuple(dict.fromkeys(_beginnings()))
"""What the text can end in that a next token may complete to a terminator."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The text of each token, reduced to what a budget asks of it.

    Attributes:
        incomplete_bytes: for 0 to 3 bytes that a character still lacks before a token,
            the bytes that one lacks after it; one byte per token id.
        traits: for each of `PARTIAL` that the text ends in before a token, one
            byte per token id: a sum of `ENDS` (it ends a sentence or a line),
            `ENDS_AFTER_NO_DIGIT` (it is a full stop, or a decimal point) and
            `IS_DIGIT` (its text ends in a digit).
        partial: for each of `PARTIAL` before a token, the index of the one
            after it; one byte per token id.
        weights: per token id, how much it says; see `weights_of`.
        spelling: the bytes of each token; none, where it stands for itself.
    """

    incomplete_bytes: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b"")
    traits: tuple[bytes, ...] = (b"",) * len(PARTIAL)
    partial: tuple[bytes, ...] = (b"",) * len(PARTIAL)
    weights: bytes = b""
    spelling: tuple[bytes, ...] = ()

    @classmethod
    def from_bytes(
        cls, tokens: Sequence[bytes], atoms: Collection[int] = frozenset()
    ) -> "Vocabulary":
        """From the bytes of each token, by token id.

        If it cannot spell a character out byte by byte, none is ever asked to
        be completed: its tokens are taken to be whole characters.

        Args:
            tokens: their bytes.
            atoms: ids of tokens that stand for themselves whatever their text
                is, as special tokens do.
        """
        before = range(LONGEST_TAIL + 1)
        incomplete_bytes = [
            bytes(_missing_after(lack, token) for token in tokens) for lack in before
        ]
        if not all(lack - 1 in incomplete_bytes[lack] for lack in before[1:]):
            incomplete_bytes = [bytes(len(tokens))] * len(before)
        none, one, two, three = incomplete_bytes
        traits, partial = _traits_by_partial(tokens)
        spelling = tuple(b"" if at in atoms else text for at, text in enumerate(tokens))
        return cls((none, one, two, three), traits, partial, weights_of(tokens), spelling)

    def symbols(self, token: int) -> tuple[int, ...]:
        """Return what a token is to a search for text: its bytes, or one symbol of its own."""
        text = self.spelling[token] if token < len(self.spelling) else b""
        return tuple(text) or (ATOM + token,)

    def incomplete_bytes_after(self, incomplete_bytes: int, token: int) -> int:
        """Bytes that a character lacks after `token`, if it lacked `incomplete_bytes` before it."""
        lacking = self.incomplete_bytes[incomplete_bytes]
        return lacking[token] if token < len(lacking) else 0

    def span(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` the character takes that begins with the first; 0 if more."""
        incomplete_bytes = 0
        for count, token in enumerate(tokens, 1):
            incomplete_bytes = self.incomplete_bytes_after(incomplete_bytes, token)
            if not incomplete_bytes:
                return count
        return 0

    def traits_of(self, token: int, partial: int = 0) -> int:
        """See `traits`; none for an id that has no text."""
        traits = self.traits[partial]
        return traits[token] if token < len(traits) else 0

    def partial_after(self, partial: int, token: int) -> int:
        """Return the index in `PARTIAL` of what the text ends in after a token."""
        partials = self.partial[partial]
        return partials[token] if token < len(partials) else 0


UNKNOWN_VOCABULARY = Vocabulary()
"""Tells nothing: no token ends a sentence, and each is made of whole characters."""


def weights_of(tokens: Sequence[bytes]) -> bytes:
    """How much each token says, by token id: its letters, at most `MOST_LETTERS`.

    A mark that ends a sentence says as much as a long word; digits, spaces and
    other punctuation say nothing. A letter of several bytes counts that often,
    in whatever way its bytes are cut into tokens.
    """
    return bytes(map(_letters, tokens))


def _letters(token: bytes) -> int:
    text = token.decode(errors="replace")
    if any(mark in text for mark in TERMINATORS):
        return MOST_LETTERS
    weights = sum(len(char.encode()) for char in text if char.isalpha())
    return min(MOST_LETTERS, weights + text.count("\N{REPLACEMENT CHARACTER}"))


def _missing_after(incomplete_bytes: int, token: bytes) -> int:
    for byte in token:
        if byte & 0xC0 == 0x80:
            incomplete_bytes = max(0, incomplete_bytes - 1)
        else:
            incomplete_bytes = (
                (byte >= 0xC2) + (byte >= 0xE0) + (byte >= 0xF0) if byte < 0xF5 else 0
            )
    return incomplete_bytes


def _traits_by_partial(
    tokens: Sequence[bytes],
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return `Vocabulary.traits` and `Vocabulary.partial`.

    What the text ended in before counts only for tokens that begin inside a character.
    """
    alone = bytes(map(_traits, tokens)), bytes(map(_partial_at_end, tokens))
    inner = [at for at, token in enumerate(tokens) if not token or token[0] & 0xC0 == 0x80]
    traits, partials = [alone[0]], [alone[1]]
    for begun in PARTIAL[1:]:
        with_traits, with_partial = bytearray(alone[0]), bytearray(alone[1])
        for at in inner:
            with_traits[at] = _traits(begun + tokens[at])
            with_partial[at] = _partial_at_end(begun + tokens[at])
        traits.append(bytes(with_traits))
        partials.append(bytes(with_partial))
    return tuple(traits), tuple(partials)


def _partial_at_end(text: bytes) -> int:
    """Return the index in `PARTIAL` of the beginning of a terminator that a text ends in."""
    if not text or text[-1] < 0x80:
        return 0
    return next((at for at, begun in enumerate(PARTIAL) if at and text.endswith(begun)), 0)


def _traits(token: bytes) -> int:
    text = token.decode(errors="replace")
    digit = IS_DIGIT if text[-1:].isdecimal() else 0
    if text.rstrip(" \t\r").endswith("\n"):
        return ENDS
    sentence = text.rstrip().rstrip(CLOSERS)
    if not sentence.endswith(tuple(TERMINATORS)):
        return digit
    if sentence == text and sentence.endswith("."):
        before = sentence[-2:-1]
        if not before:
            return ENDS_AFTER_NO_DIGIT
        return 0 if before.isdecimal() else ENDS
    return ENDS
