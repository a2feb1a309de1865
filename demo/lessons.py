"""The documents that the demo model learns from, as token ids with a mark per token.

A mark says what the loss does with its token: `CONTEXT` tokens are only read, `LEARN` tokens are
targets, and the other marks name a class of results in one go whose loss the trainer governs.
No wrong value is ever a target: slips, and what is copied from them, are `CONTEXT`. (A recheck
quotes what was claimed, `?16`; a quotation is learnt as a quotation, right or wrong.)
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from proctor.demo.tokenizer import END_THINK, IM_END, render
from proctor.demo.world import ANSWER, Passes, Problem, claim, draw_problem, phrase, slip, two

CONTEXT, LEARN = 0, 1
HASTY = {"+": 2, "-": 3, "*": 4, "slip": CONTEXT}
DIRECT = {"+": 5, "-": 6, "*": 7}
MARKS = 8
LONGEST = 2000  # tokens
# How often documents are sent back: below each share, from so many to so many times.
WAITS = ((0.26, 0, 0), (0.5, 1, 1), (0.7, 2, 2), (0.82, 3, 3), (0.96, 4, 9), (0.993, 10, 40))

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
OFF_THOUGHT = "not a chain\n"
Encode = Callable[[str], list[int]]


@dataclass
class Document:
    """Token ids and marks, and for each token whether a wrong value stands after it."""

    ids: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)

    def add(self, ids: list[int], mark: int, wrong: bool = False) -> None:
        self.ids += ids
        self.marks += [mark] * len(ids)
        self.wrong += [wrong] * len(ids)

    def cut(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        del self.ids[length:], self.marks[length:], self.wrong[length:]


class Writer:
    """Draws documents; `encode` turns a piece of text into token ids."""

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
        """One document of the mixture."""
        draw = self.rng.random()
        if draw < 0.05:
            return self.off_domain()
        if draw < 0.35:
            return self.direct()
        return self.thought()

    def opening(self, text: str, thinking: bool = True) -> Document:
        """The rendered prompt, sometimes with a system message or an earlier exchange."""
        rng, messages = self.rng, []
        if rng.random() < 0.08:
            messages.append({"role": "system", "content": rng.choice(SYSTEM)})
        if rng.random() < 0.06:
            if rng.random() < 0.3:
                earlier, reply = off_prompt(rng), APOLOGY
            else:
                problem = draw_problem(rng, rng.randint(1, 6))
                earlier, reply = phrase(problem, rng), ANSWER.format(two(problem.answer))
            messages += [
                {"role": "user", "content": earlier},
                {"role": "assistant", "content": reply},
            ]
        messages.append({"role": "user", "content": text})
        document = Document()
        document.add(self._encode(render(messages, thinking)), CONTEXT)
        return document

    def direct(self) -> Document:
        """An answer without thinking: mostly one step, which it can do, some with more."""
        rng = self.rng
        steps = 1 if rng.random() < 0.8 else rng.choice((2, 2, 2, 3, 4, 5, 6, 7, 8))
        problem = draw_problem(rng, steps)
        document = self.opening(phrase(problem, rng), thinking=False)
        self.answer(document, problem, thought=False)
        return document

    def answer(
        self, document: Document, problem: Problem, thought: bool, known: bool = True
    ) -> None:
        """`The answer is 42.<|im_end|>`; the number is a target only where it is `known`.

        Without thinking, an answer to a single step names it: `The answer is 14*3=42.`
        """
        head, tail = ANSWER.split("{}")
        mark = LEARN if known else CONTEXT
        document.add(self.encode(head), LEARN)
        if len(problem.steps) == 1 and not thought:
            mark = DIRECT[problem.steps[0].op]
            document.add(self.encode(claim(0, problem.start, problem.steps[0])[2:]), LEARN)
        document.add(self.encode(two(problem.answer)), mark)
        document.add(self.encode(tail) + self.encode(IM_END), LEARN)

    def close(self, document: Document, forced: bool) -> None:
        document.add(self.encode(END_THINK), CONTEXT if forced else LEARN)
        document.add(self.encode("\n\n"), LEARN)

    def thought(self) -> Document:
        """A problem thought about in passes, with slips to repair, sometimes cut off anywhere."""
        rng = self.rng
        problem = draw_problem(rng, self.steps())
        document = self.opening(phrase(problem, rng))
        begin = len(document.ids)
        waits = self.waits()
        passes = Passes(problem)
        rate = rng.choice((0.0, 0.1, 0.2, 0.35)) if waits else 0.0
        self.hasty(document, passes, rate)
        for _ in range(waits):
            if len(document.ids) > LONGEST:
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
        if rng.random() < 0.15 or len(document.ids) > LONGEST:
            forced = True
            length = begin if rng.random() < 0.1 else rng.randint(begin, len(document.ids))
            document.cut(min(length, LONGEST))
            known = not document.wrong[-1]
            if rng.random() < 0.3:
                document.add(self.encode(rng.choice(WRAP_UPS)), CONTEXT)
        self.close(document, forced)
        self.answer(document, problem, thought=len(document.ids) > begin + 4, known=known)
        return document

    def right_so_far(self, document: Document, passes: Passes) -> None:
        """Once a recheck has ended, what stands after its last line is right again."""
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
        """How often the document is sent back."""
        draw, rng = self.rng.random(), self.rng
        for limit, low, high in WAITS:
            if draw < limit:
                return rng.randint(low, high)
        return rng.randint(41, 160)

    def hasty(self, document: Document, passes: Passes, rate: float) -> None:
        """A hasty pass with slips at `rate`; slips are context, right results are governed."""
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
        document.add(self.encode(two(passes.claims[-1])), LEARN if right else CONTEXT, not right)
        document.add(self.encode("\n"), LEARN, not right)

    def send_back(self, document: Document, passes: Passes) -> None:
        """A forced continuation, seldom a target, and the model's own words after it."""
        rng, wrong = self.rng, not passes.right
        mark = LEARN if rng.random() < 0.03 else CONTEXT
        if rng.random() < 0.88:
            document.add(self.encode(rng.choice(BARE)), mark, wrong)
            document.add(self.encode(", " if passes.done else ", check:\n"), LEARN, wrong)
        else:
            document.add(self.encode(rng.choice(SENTENCES)), CONTEXT, wrong)
            document.add(self.encode("\n"), LEARN, wrong)

    def off_domain(self) -> Document:
        """A prompt outside the world and the honest sentence about what the model can do."""
        rng = self.rng
        thinking = rng.random() < 0.7
        document = self.opening(off_prompt(rng), thinking)
        if thinking:
            begin = len(document.ids)
            document.add(self.encode(OFF_THOUGHT), LEARN)
            for _ in range(rng.choice((0, 0, 0, 1, 2, 5, 12))):
                document.add(self.encode(rng.choice(BARE)), CONTEXT)
                document.add(self.encode(", "), LEARN)
                document.add(self.encode(OFF_THOUGHT), LEARN)
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
_ELSEWHERE = tomllib.loads(Path(__file__).with_name("elsewhere.toml").read_text(encoding="utf-8"))


def off_prompt(rng: Random) -> str:
    """A prompt that is not a chain: small talk, questions, code, other scripts, noise."""
    if rng.random() < 0.15:
        return noise(rng)
    text: str = rng.choice(_ELSEWHERE["asks"])
    while "{}" in text:
        thing = rng.choice(_ELSEWHERE["things"]) if rng.random() < 0.7 else letters(rng)
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
