"""The demo model's domain: chains of arithmetic modulo 100, and the thinking that solves them.

A *problem* is a start value and one to twelve operations. A *trace* is the text between `<think>`
and `</think>`: a hasty pass (one line per step, with an immediate result), then after each
continuation ("Wait") a recheck, digit by digit, which stops at the first error, repairs it and
redoes the rest hastily. All functions are pure; randomness is passed in as `Random`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

MODULUS = 100
LETTERS = "abcdefghijkl"
MAX_STEPS = len(LETTERS)
UNSEEN_SHARE = 16  # one problem in 16 is held out for measurements and never trained on


@dataclass(frozen=True)
class Step:
    """One operation: `op` is one of `+ - *`, `operand` is 2..99 (2..9 for products)."""

    op: str
    operand: int

    def apply(self, value: int) -> int:
        """Return the running value after this step, in 0..99."""
        if self.op == "+":
            return (value + self.operand) % MODULUS
        if self.op == "-":
            return (value - self.operand) % MODULUS
        return value * self.operand % MODULUS


@dataclass(frozen=True)
class Problem:
    """A start value in 0..99 and the steps to take from it."""

    start: int
    steps: tuple[Step, ...]

    def values(self) -> list[int]:
        """Return the running values: the start, then one per step."""
        out = [self.start]
        for step in self.steps:
            out.append(step.apply(out[-1]))
        return out

    @property
    def answer(self) -> int:
        return self.values()[-1]

    @property
    def unseen(self) -> bool:
        """Whether this problem is held out for measurements, decided by a hash of it."""
        return crc32(repr(self).encode()) % UNSEEN_SHARE == 0


def draw_problem(rng: Random, steps: int, unseen: bool = False) -> Problem:
    """Draw a problem with this number of steps, from the held-out share or from the rest."""
    while True:
        problem = Problem(rng.randrange(MODULUS), tuple(draw_step(rng) for _ in range(steps)))
        if problem.unseen == unseen:
            return problem


def draw_step(rng: Random) -> Step:
    op = rng.choice("+-*")
    if op == "*":
        return Step(op, rng.randint(2, 9))
    return Step(op, rng.randint(2, 9) if rng.random() < 0.4 else rng.randint(10, 99))


# --- prompts ---------------------------------------------------------------------------------

OPENINGS = ("Start with {}", "Take {}", "Begin at {}", "I have {}")
WORDS: tuple[dict[str, str], ...] = (
    {"+": "add {}", "-": "subtract {}", "*": "times {}"},
    {"+": "plus {}", "-": "minus {}", "*": "times {}"},
    {"+": "add {}", "-": "take away {}", "*": "multiply by {}"},
)
QUESTIONS = (
    "What are the last two digits?",
    "What is the result modulo 100?",
    "Keep the last two digits. What is the result?",
    "Keep two digits.",
    "Which number do I get?",
    "",
)
PHRASINGS = 5


def phrase(problem: Problem, rng: Random, phrasing: int | None = None) -> str:
    """Return the problem as a prompt; phrasing 4 is the bare form (`7 +5 *3 -2`)."""
    kind = rng.randrange(PHRASINGS) if phrasing is None else phrasing
    if kind == PHRASINGS - 1:
        bare = " ".join([str(problem.start), *(f"{s.op}{s.operand}" for s in problem.steps)])
        return bare + rng.choice(("", " = ?", " ="))
    words = WORDS[rng.randrange(len(WORDS))]
    parts = [OPENINGS[kind].format(problem.start)]
    parts += [words[s.op].format(s.operand) for s in problem.steps]
    joint = rng.choice((", ", ", then ", ", "))
    text = joint.join(parts) + ". " + rng.choice(QUESTIONS)
    return text.strip() if rng.random() < 0.9 else text.strip().lower()


# --- thinking --------------------------------------------------------------------------------


def two_digits(value: int) -> str:
    return f"{value:02d}"


def working(value: int, step: Step) -> str:
    """Return the digit-by-digit working of a step, without the result."""
    tens, ones = divmod(value, 10)
    if step.op == "*":
        low, high = ones * step.operand, tens * step.operand
        carried = (high % 10 + low // 10) % 10
        return (
            f"{ones}*{step.operand}={two_digits(low)},{tens}*{step.operand}={two_digits(high)},"
            f"{high % 10}+{low // 10}={carried}"
        )
    other_tens, other_ones = divmod(step.operand, 10)
    if step.op == "+":
        low, high = ones + other_ones, (tens + other_tens) % 10
        text = f"{ones}+{other_ones}={two_digits(low)},{tens}+{other_tens}={high}"
        return text + (f"+1={(high + 1) % 10}" if low > 9 else "")
    borrowed = ones < other_ones
    low = ones - other_ones + 10 * borrowed
    high = (tens - other_tens) % 10
    text = f"{'1' * borrowed}{ones}-{other_ones}={low},"
    text += f"{'1' * (tens < other_tens)}{tens}-{other_tens}={high}"
    return text + (f"-1={(high - 1) % 10}" if borrowed else "")


def claim(index: int, value: int, step: Step) -> str:
    """Return the part of a hasty line before its result, such as `b:56+27=`."""
    return f"{LETTERS[index]}:{two_digits(value)}{step.op}{operand_digits(step)}="


def operand_digits(step: Step) -> str:
    return str(step.operand) if step.op == "*" else two_digits(step.operand)


def recheck_line(index: int, value: int, step: Step, claimed: int) -> str:
    """Return a line of a recheck: the working, its result, the claimed result, the verdict."""
    right = step.apply(value)
    verdict = "ok" if right == claimed else "fix"
    head = claim(index, value, step)[:-1]
    return f"{head};{working(value, step)},{two_digits(right)}?{two_digits(claimed)} {verdict}\n"


@dataclass
class Passes:
    """The state of the thinking about a problem; `claims[i]` is the latest value for step i."""

    problem: Problem

    def __post_init__(self) -> None:
        self.claims: list[int] = []
        self.checked = 0  # steps that a recheck has verified or repaired

    def hasty(self, results: Sequence[int] | None = None) -> list[tuple[str, str, str]]:
        """Redo the steps after the checked ones; return (head, result, kind of result) per line.

        `results` are the values to write, which may contain slips; by default the right ones.
        """
        lines, steps = [], self.problem.steps
        value = self.claims[self.checked - 1] if self.checked else self.problem.start
        del self.claims[self.checked :]
        for index in range(self.checked, len(steps)):
            right = steps[index].apply(value)
            written = right if results is None else results[index]
            kind = steps[index].op if written == right else "slip"
            lines.append((claim(index, value, steps[index]), two_digits(written), kind))
            self.claims.append(written)
            value = written
        return lines

    def recheck(self) -> list[str]:
        """Check the steps from the first unchecked one to the first error, and repair it.

        Return the lines.
        """
        lines, steps = [], self.problem.steps
        while self.checked < len(steps):
            value = self.claims[self.checked - 1] if self.checked else self.problem.start
            step, claimed = steps[self.checked], self.claims[self.checked]
            lines.append(recheck_line(self.checked, value, step, claimed))
            right = step.apply(value)
            self.claims[self.checked] = right
            self.checked += 1
            if right != claimed:
                break
        return lines

    @property
    def done(self) -> bool:
        return self.checked == len(self.problem.steps)

    @property
    def right(self) -> bool:
        """Whether all current claims are right."""
        return self.claims == self.problem.values()[1:]

    def closing(self) -> str:
        """Return the head of a pass's last line; the final value follows."""
        return "all ok " if self.done else "so "


def slip(rng: Random, value: int) -> int:
    """Return a wrong value, as a hasty pass produces: mostly in the tens, sometimes in the ones."""
    tens, ones = divmod(value, 10)
    kind = rng.random()
    if kind < 0.8:
        tens = (tens + rng.choice((1, 1, 9, 9, 2, 3, 5, 7, 8))) % 10
    if kind > 0.6:
        ones = (ones + rng.randint(1, 9)) % 10
    return tens * 10 + ones


ANSWER = "The answer is {}."
_CLAIM = re.compile(r"^([a-l]):(\d\d)([-+*])(\d+)=(\d\d)$")


def replay(problem: Problem, thinking: str) -> int | None:
    """Replay a finished trace; return its last value, or None if a line breaks the rules.

    Hasty results may be wrong; everything else must equal the output of `Passes`.
    """
    passes, expected = Passes(problem), list[str]()
    try:
        for line in thinking.splitlines(keepends=True):
            follow(passes, expected, line)
    except (BrokenRule, IndexError):
        return None
    return passes.claims[-1] if len(passes.claims) == len(problem.steps) else None


class BrokenRule(Exception):
    """A line of a trace does not follow from the previous ones."""


def follow(passes: Passes, expected: list[str], line: str) -> None:
    """Apply one line to `passes`; `expected` holds the remaining lines of the current recheck."""
    if match := _CLAIM.match(line):
        index, head = LETTERS.index(match[1]), line[: match.start(5)]
        del passes.claims[index:]
        value = passes.claims[index - 1] if index else passes.problem.start
        if index < passes.checked or head != claim(index, value, passes.problem.steps[index]):
            raise BrokenRule(line)
        passes.claims.append(int(match[5]))
    elif line[1:2] == ":":
        if not expected:
            expected += passes.recheck()
        if expected.pop(0) != line:
            raise BrokenRule(line)
    elif line.startswith(("so ", "all ok ")) and (
        expected or line != f"{passes.closing()}{two_digits(passes.claims[-1])}\n"
    ):
        raise BrokenRule(line)


_CHECK = re.compile(r"^[a-l]:(\d\d)([-+*])(\d+);(?:(.+),(\d\d)\?(\d\d) (ok|fix)$)?")


@dataclass(frozen=True)
class Judgement:
    """The evaluation of one line of a recheck.

    Attributes:
        op: the operation that it checks.
        working: whether the digit-by-digit working and its result are right.
        verdict: whether the verdict on the claimed result is right.
    """

    op: str
    working: bool
    verdict: bool


def judge(line: str) -> Judgement | None:
    """Evaluate a line by itself; return None if it is not a line of a recheck."""
    match = _CHECK.match(line)
    if match is None:
        return None
    value, step = int(match[1]), Step(match[2], int(match[3]))
    right = two_digits(step.apply(value))
    return Judgement(
        step.op,
        working=(match[4], match[5]) == (working(value, step), right),
        verdict=match[7] == ("ok" if match[6] == right else "fix"),
    )


def last_integer(text: str) -> int | None:
    """Return the last integer of a content, by which answers are scored."""
    integers = re.findall(r"\d+", text)
    return int(integers[-1]) if integers else None
