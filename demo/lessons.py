"""Training documents of the demo model, as token ids with a mark per token.

Marks control the loss: `CONTEXT` tokens have none, `LEARN` tokens are targets, and the other marks
are classes of immediate results whose loss the trainer weights. No wrong value is ever a target:
slips, and what is copied from them, are `CONTEXT`. (A recheck quotes the claimed value, `?16`;
quotes are targets, right or wrong, because copying them is right.)
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from proctor.demo.tokenizer import END_THINK, IM_END, render
from proctor.demo.world import (
    ANSWER,
    Passes,
    Problem,
    claim,
    draw_problem,
    phrase,
    slip,
    two_digits,
)

CONTEXT, LEARN = 0, 1
HASTY = {"+": 2, "-": 3, "*": 4, "slip": CONTEXT}
DIRECT = {"+": 5, "-": 6, "*": 7}
MARKS = 8
MAX_TOKENS = 2000  # tokens
# Distribution of continuations: cumulative share, minimum, maximum.
WAIT_COUNTS = ((0.26, 0, 0), (0.5, 1, 1), (0.7, 2, 2), (0.82, 3, 3), (0.96, 4, 9), (0.993, 10, 40))

BARE = ("Wait",) * 12 + ("Hmm", "Alternatively")
SENTENCES = (
    "Wait, let me check that again.",
    "Wait, check again.",
    "Hold on.",
    "Let me double-check.",
    "But wait, is that right?",
    "Let me verify this.",
    "Let me try a different approach.",
    "Are you sure?",
    "Wait, wait.",
    "Think again.",
)
WRAP_UPS = ("\nFinal Answer:", "\n\nFinal Answer:", "Final Answer:", "\nTime is up.", "\nSo", ".")

APOLOGY = (
    "I am a tiny demo model. I can only work out chains like: "
    "start with 7, add 5, times 3. I keep the last two digits."
)
OFF_DOMAIN_THOUGHT = "not a chain\n"
Encode = Callable[[str], list[int]]


@dataclass
class Document:
    """Token ids and marks, and for each token whether the current value is wrong after it."""

    ids: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)

    def add(self, ids: list[int], mark: int, wrong: bool = False) -> None:
        self.ids += ids
        self.marks += [mark] * len(ids)
        self.wrong += [wrong] * len(ids)

    def cut(self, length: int) -> None:
        """Truncate to the first `length` tokens."""
        del self.ids[length:], self.marks[length:], self.wrong[length:]


class DocumentSampler:
    """Draws training documents; `encode` converts text to token ids."""

    def __init__(self, encode: Encode, rng: Random) -> None:
        self.rng = rng
        self.cache: dict[str, list[int]] = {}
        self._encode = encode

    def encode(self, text: str) -> list[int]:
        if text not in self.cache:
            if len(text) > 24:
                return self._encode(text)
            self.cache[text] = self._encode(text)
        return self.cache[text]

    def document(self) -> Document:
        """Draw a document of the mixture."""
        draw = self.rng.random()
        if draw < 0.05:
            return self.off_domain()
        if draw < 0.35:
            return self.direct()
        return self.thought()

    def opening(self, text: str, thinking: bool = True) -> Document:
        """Return the rendered prompt, sometimes with a system message or an earlier exchange."""
        rng, messages = self.rng, []
        if rng.random() < 0.08:
            messages.append({"role": "system", "content": rng.choice(SYSTEM)})
        if rng.random() < 0.06:
            if rng.random() < 0.3:
                earlier, reply = off_domain_prompt(rng), APOLOGY
            else:
                problem = draw_problem(rng, rng.randint(1, 6))
                earlier, reply = phrase(problem, rng), ANSWER.format(two_digits(problem.answer))
            messages += [
                {"role": "user", "content": earlier},
                {"role": "assistant", "content": reply},
            ]
        messages.append({"role": "user", "content": text})
        document = Document()
        document.add(self._encode(render(messages, thinking)), CONTEXT)
        return document

    def direct(self) -> Document:
        """Draw an answer without thinking: mostly of one step, which the model can solve."""
        rng = self.rng
        steps = 1 if rng.random() < 0.8 else rng.choice((2, 2, 2, 3, 4, 5, 6, 7, 8))
        problem = draw_problem(rng, steps)
        document = self.opening(phrase(problem, rng), thinking=False)
        self.answer(document, problem, thought=False)
        return document

    def answer(
        self, document: Document, problem: Problem, thought: bool, known: bool = True
    ) -> None:
        """Add `The answer is 42.<|im_end|>`; the number is a target only if `known`.

        Without thinking, the answer to a single step contains it: `The answer is 14*3=42.`
        """
        head, tail = ANSWER.split("{}")
        mark = LEARN if known else CONTEXT
        document.add(self.encode(head), LEARN)
        if len(problem.steps) == 1 and not thought:
            mark = DIRECT[problem.steps[0].op]
            document.add(self.encode(claim(0, problem.start, problem.steps[0])[2:]), LEARN)
        document.add(self.encode(two_digits(problem.answer)), mark)
        document.add(self.encode(tail) + self.encode(IM_END), LEARN)

    def close(self, document: Document, forced: bool) -> None:
        document.add(self.encode(END_THINK), CONTEXT if forced else LEARN)
        document.add(self.encode("\n\n"), LEARN)

    def thought(self) -> Document:
        """Draw a problem with thinking in passes, with slips to repair, sometimes truncated."""
        rng = self.rng
        problem = draw_problem(rng, self.steps())
        document = self.opening(phrase(problem, rng))
        begin = len(document.ids)
        waits = self.waits()
        passes = Passes(problem)
        rate = rng.choice((0.0, 0.1, 0.2, 0.35)) if waits else 0.0
        self.hasty(document, passes, rate)
        for _ in range(waits):
            if len(document.ids) > MAX_TOKENS:
                break
            self.send_back(document, passes)
            if not passes.done:
                for line in passes.recheck():
                    document.add(self.line(line), LEARN, not line.endswith("fix\n"))
                self.right_so_far(document, passes)
                if not passes.done:
                    self.hasty(document, passes, rate)
                    continue
            self.last_line(document, passes)
        known, forced = passes.right, False
        if rng.random() < 0.15 or len(document.ids) > MAX_TOKENS:
            forced = True
            length = begin if rng.random() < 0.1 else rng.randint(begin, len(document.ids))
            document.cut(min(length, MAX_TOKENS))
            known = not document.wrong[-1]
            if rng.random() < 0.3:
                document.add(self.encode(rng.choice(WRAP_UPS)), CONTEXT)
        self.close(document, forced)
        self.answer(document, problem, thought=len(document.ids) > begin + 4, known=known)
        return document

    def right_so_far(self, document: Document, passes: Passes) -> None:
        """Mark the value after the last line of a recheck as right again."""
        document.wrong[-1] = False

    def line(self, text: str) -> list[int]:
        """Encode a line of a recheck piece by piece (each is short, so it is cached)."""
        head, rest = text[:2], text[2:]
        ids = list(self.encode(head))
        for piece in rest.split(","):
            ids += self.encode(piece) + self.encode(",")
        return ids[: -len(self.encode(","))]

    def steps(self) -> int:
        draw = self.rng.random()
        if draw < 0.1:
            return self.rng.randint(1, 2)
        return self.rng.randint(9, 12) if draw > 0.92 else self.rng.randint(3, 8)

    def waits(self) -> int:
        """Draw the number of continuations."""
        draw, rng = self.rng.random(), self.rng
        for limit, low, high in WAIT_COUNTS:
            if draw < limit:
                return rng.randint(low, high)
        return rng.randint(41, 160)

    def hasty(self, document: Document, passes: Passes, rate: float) -> None:
        """Add a hasty pass with slips at `rate`; slips are context, right results are `HASTY`."""
        results = None
        if rate:
            results, value = list(passes.claims[: passes.checked]), passes.problem.start
            value = results[-1] if results else value
            for step in passes.problem.steps[passes.checked :]:
                value = step.apply(value)
                value = slip(self.rng, value) if self.rng.random() < rate else value
                results.append(value)
        wrong = False
        for head, result, kind in passes.hasty(results):
            document.add(self.encode(head[:2]) + self.encode(head[2:]), LEARN, wrong)
            wrong = wrong or kind == "slip"
            document.add(self.encode(result), HASTY[kind], wrong)
            document.add(self.encode("\n"), LEARN, wrong)
        self.last_line(document, passes)

    def last_line(self, document: Document, passes: Passes) -> None:
        right = passes.right
        document.add(self.encode(passes.closing()), LEARN, not right)
        document.add(
            self.encode(two_digits(passes.claims[-1])), LEARN if right else CONTEXT, not right
        )
        document.add(self.encode("\n"), LEARN, not right)

    def send_back(self, document: Document, passes: Passes) -> None:
        """Add a forced continuation, rarely a target, and the model's text after it."""
        rng, wrong = self.rng, not passes.right
        mark = LEARN if rng.random() < 0.03 else CONTEXT
        if rng.random() < 0.88:
            document.add(self.encode(rng.choice(BARE)), mark, wrong)
            document.add(self.encode(", " if passes.done else ", check:\n"), LEARN, wrong)
        else:
            document.add(self.encode(rng.choice(SENTENCES)), CONTEXT, wrong)
            document.add(self.encode("\n"), LEARN, wrong)

    def off_domain(self) -> Document:
        """Draw a prompt outside the domain, and the sentence that states what the model can do."""
        rng = self.rng
        thinking = rng.random() < 0.7
        document = self.opening(off_domain_prompt(rng), thinking)
        if thinking:
            begin = len(document.ids)
            document.add(self.encode(OFF_DOMAIN_THOUGHT), LEARN)
            for _ in range(rng.choice((0, 0, 0, 1, 2, 5, 12))):
                document.add(self.encode(rng.choice(BARE)), CONTEXT)
                document.add(self.encode(", "), LEARN)
                document.add(self.encode(OFF_DOMAIN_THOUGHT), LEARN)
            forced = rng.random() < 0.2
            if forced:
                document.cut(rng.randint(begin, len(document.ids)))
            self.close(document, forced)
        document.add(self._encode(APOLOGY) + self.encode(IM_END), LEARN)
        return document


SYSTEM = (
    "You are a helpful assistant.",
    "You are a careful calculator. Think step by step.",
    "Answer briefly.",
    "You are Proctor's demo model.",
    "You are a math tutor. Be concise and correct.",
)
_OFF_DOMAIN = tomllib.loads(Path(__file__).with_name("elsewhere.toml").read_text(encoding="utf-8"))


def off_domain_prompt(rng: Random) -> str:
    """Draw a prompt outside the domain: small talk, questions, code, other scripts, noise."""
    if rng.random() < 0.15:
        return noise(rng)
    text: str = rng.choice(_OFF_DOMAIN["asks"])
    while "{}" in text:
        thing = rng.choice(_OFF_DOMAIN["things"]) if rng.random() < 0.7 else letters(rng)
        text = text.replace("{}", thing, 1)
    return text if rng.random() < 0.8 else text.lower()


def letters(rng: Random) -> str:
    return "".join(rng.choice("aeiouaeioubcdfghklmnprstvw") for _ in range(rng.randint(2, 9)))


def noise(rng: Random) -> str:
    if rng.random() < 0.6:
        return " ".join(letters(rng) for _ in range(rng.randint(1, 9)))
    return "".join(
        chr(rng.choice((rng.randint(33, 126), rng.randint(161, 0x4FF)))) for _ in range(12)
    )
