"""The properties of tokens' texts that budgets need, such as ends of characters and sentences."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

MAX_CONTINUATION_BYTES = 3
"""Maximum number of bytes of a UTF-8 character after the first."""

TERMINATORS = ".!?…。！？؟।"  # noqa: RUF001
CLOSERS = "\"'`*_)]}»”’」』）"  # noqa: RUF001
"""Characters that may follow a terminator and still belong to its sentence."""

MAX_WEIGHT = 6
"""Maximum weight of a token in loop detection; see `weights_of`."""

ENDS, ENDS_AFTER_NO_DIGIT, IS_DIGIT = 1, 2, 4
"""Bits of `Vocabulary.traits`."""

ATOM = 256
"""Symbols below are bytes; the symbol ATOM + t is the token t as a whole."""


def _terminator_prefixes() -> Iterator[bytes]:
    """Yield the empty prefix, then every proper prefix of a terminator of several bytes."""
    yield b""
    for terminator in TERMINATORS:
        encoded = terminator.encode()
        yield from (encoded[:length] for length in range(1, len(encoded)))


PARTIAL = tuple(dict.fromkeys(_terminator_prefixes()))
"""Partial terminators: byte sequences at the end of a text that a token may complete."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The properties of each token's text; all byte strings have one byte per token id.

    Attributes:
        incomplete_bytes: by the number of bytes (0 to 3) missing from the last
            character before a token, the number missing after it.
        traits: by the index in `PARTIAL` of the text before a token, the bitwise
            or of `ENDS` (the token ends a sentence or line), `ENDS_AFTER_NO_DIGIT`
            (it is a full stop, or a decimal point) and `IS_DIGIT` (its text ends
            in a digit).
        partial: by the index in `PARTIAL` before a token, the index after it.
        weights: the token's weight in loop detection; see `weights_of`.
        spelling: per token id, its bytes; empty for a token that is matched as a
            whole.
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
        """Create a vocabulary from the bytes of each token.

        If no tokens complete a character byte by byte, all tokens count as whole
        characters, because a cut character could not be completed.

        Args:
            tokens: the bytes, by token id.
            atoms: ids of tokens that are matched as a whole whatever their text,
                such as special tokens.
        """
        before = range(MAX_CONTINUATION_BYTES + 1)
        incomplete_bytes = [
            bytes(_incomplete_bytes_after(missing, token) for token in tokens) for missing in before
        ]
        if not all(missing - 1 in incomplete_bytes[missing] for missing in before[1:]):
            incomplete_bytes = [bytes(len(tokens))] * len(before)
        none, one, two, three = incomplete_bytes
        traits, partial = _traits_by_partial(tokens)
        spelling = tuple(b"" if token in atoms else text for token, text in enumerate(tokens))
        return cls((none, one, two, three), traits, partial, weights_of(tokens), spelling)

    def symbols(self, token: int) -> tuple[int, ...]:
        """Return a token's symbols for text matching: its bytes, or a symbol of its own."""
        text = self.spelling[token] if token < len(self.spelling) else b""
        return tuple(text) or (ATOM + token,)

    def incomplete_bytes_after(self, incomplete_bytes: int, token: int) -> int:
        """Return how many bytes of a character are missing after a token.

        Args:
            incomplete_bytes: how many were missing before it, 0 to 3.
            token: the token's id.
        """
        after = self.incomplete_bytes[incomplete_bytes]
        return after[token] if token < len(after) else 0

    def span(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens` the first character spans; 0 if it is incomplete."""
        incomplete_bytes = 0
        for count, token in enumerate(tokens, 1):
            incomplete_bytes = self.incomplete_bytes_after(incomplete_bytes, token)
            if not incomplete_bytes:
                return count
        return 0

    def traits_of(self, token: int, partial: int = 0) -> int:
        """Return a token's traits; 0 for an id without a text."""
        traits = self.traits[partial]
        return traits[token] if token < len(traits) else 0

    def partial_after(self, partial: int, token: int) -> int:
        """Return the index in `PARTIAL` of the end of the text after a token."""
        partials = self.partial[partial]
        return partials[token] if token < len(partials) else 0


UNKNOWN_VOCABULARY = Vocabulary()
"""A vocabulary without texts: no token ends a sentence, and all are whole characters."""


def weights_of(tokens: Sequence[bytes]) -> bytes:
    """Return a weight for each token: its number of letters, at most `MAX_WEIGHT`.

    A sentence terminator weighs as much as a long word; digits, spaces and other
    punctuation weigh 0. A letter of several bytes counts once per byte, however its
    bytes are split into tokens.
    """
    return bytes(map(_weight, tokens))


def _weight(token: bytes) -> int:
    text = token.decode(errors="replace")
    if any(mark in text for mark in TERMINATORS):
        return MAX_WEIGHT
    letters = sum(len(char.encode()) for char in text if char.isalpha())
    return min(MAX_WEIGHT, letters + text.count("\N{REPLACEMENT CHARACTER}"))


def _incomplete_bytes_after(incomplete_bytes: int, token: bytes) -> int:
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

    The text before a token matters only if the token starts inside a character.
    """
    default_traits = bytes(map(_traits, tokens))
    default_partial = bytes(map(_partial_at_end, tokens))
    inside = [index for index, token in enumerate(tokens) if not token or token[0] & 0xC0 == 0x80]
    all_traits, all_partials = [default_traits], [default_partial]
    for prefix in PARTIAL[1:]:
        traits, partial = bytearray(default_traits), bytearray(default_partial)
        for index in inside:
            traits[index] = _traits(prefix + tokens[index])
            partial[index] = _partial_at_end(prefix + tokens[index])
        all_traits.append(bytes(traits))
        all_partials.append(bytes(partial))
    return tuple(all_traits), tuple(all_partials)


def _partial_at_end(text: bytes) -> int:
    """Return the index in `PARTIAL` of the partial terminator that a text ends in."""
    if not text or text[-1] < 0x80:
        return 0
    prefixes = enumerate(PARTIAL[1:], 1)
    return next((index for index, prefix in prefixes if text.endswith(prefix)), 0)


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
