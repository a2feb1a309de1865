"""The documents that the demo model learns from, as token ids with a mark per token.

A mark says what the loss does with its token: `CONTEXT` tokens are only read, `LEARN` tokens are
targets, and the other marks name a class of results in one go whose loss the trainer governs.
No wrong value is ever a target: slips, and what is copied from them, are `CONTEXT`. (A recheck
quotes what was claimed, `?16`; a quotation is learnt as a quotation, right or wrong.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from demo.tokenizer import END_THINK, IM_END, render
from demo.world import ANSWER, Passes, Problem, draw_problem, phrase, slip, two

CONTEXT, LEARN = 0, 1
HASTY = {"+": 2, "-": 3, "*": 4, "slip": CONTEXT}
DIRECT = {"+": 5, "-": 6, "*": 7}
MARKS = 8
LONGEST = 2000  # tokens

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
        if draw < 0.06:
            return self.off_domain()
        if draw < 0.30:
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
                earlier, reply = phrase(problem, rng), ANSWER.format(problem.answer)
            messages += [
                {"role": "user", "content": earlier},
                {"role": "assistant", "content": reply},
            ]
        messages.append({"role": "user", "content": text})
        document = Document()
        document.add(self._encode(render(messages, thinking)), CONTEXT)
        return document

    def direct(self) -> Document:
        """An answer without thinking: mostly one step, which it can do, some more, which it cannot."""
        rng = self.rng
        steps = 1 if rng.random() < 0.7 else rng.randint(2, 8)
        problem = draw_problem(rng, steps)
        document = self.opening(phrase(problem, rng), thinking=False)
        self.answer(document, problem, thought=False)
        return document

    def answer(self, document: Document, problem: Problem, thought: bool, known: bool = True) -> None:
        """`The answer is 42.<|im_end|>`; the number is a target only where it is `known`."""
        head, tail = ANSWER.split("{}")
        mark = LEARN if known else CONTEXT
        if len(problem.steps) == 1 and not thought:
            mark = DIRECT[problem.steps[0].op]
        document.add(self.encode(head), LEARN)
        document.add(self.encode(str(problem.answer)), mark)
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
        for limit, low, high in ((0.26, 0, 0), (0.5, 1, 1), (0.7, 2, 2), (0.82, 3, 3), (0.96, 4, 9)):
            if draw < limit:
                return rng.randint(low, high)
        return rng.randint(10, 40) if draw < 0.993 else rng.randint(41, 160)

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
_ASKS = (
    "Hello|Hi|Hi there|hey|Good morning|Hello, who are you?|What can you do?|Tell me a joke|"
    "Write a poem about {}|What is the capital of {}?|Who wrote {}?|Explain {} to me|"
    "Translate {} into French|Summarise {}|Why is {} so {}?|How do I cook {}?|Write code for {}|"
    "def {}({}):|Fix this bug in {}|What time is it?|Thanks!|ok|test|Are you conscious?|"
    "What do you think about {}?|Is {} better than {}?|Give me {} ideas for {}|List {} facts on {}|"
    "Solve x + {} = {}|What is the square root of {}?|Is {} a prime number?|How many r's are in {}?|"
    "I have {} {}. How many {} are left?|When was {} born?|Tell me about {}|Who won in {}?|"
    "What's the weather in {}?|Help|Say {}|Repeat: {}|What is {}?|{}|{} {} {}|{}?|Prove that {} is {}|"
    "Bonjour|Hola, ¿qué tal?|你好|Привет|مرحبا|Guten Tag|こんにちは|🙂|Wie heißt du?|Who made you?|"
    "The quick brown fox jumps over the lazy dog.|Once upon a time|Write a story on {} and {}|"
    "Can you help me with {}?|Plan a trip to {}|Start a song about {}|Take me to {}|Begin with {}|"
    "Please write an email to {} about {}|Compare {} and {}|What are the last {} of {}?"
).split("|")
_THINGS = (
    "cats dogs France Japan love rain music history Python gravity bread soup Paris Einstein "
    "quantum_physics the_moon the_sun Hamlet a_car my_friend strawberry 17 4 100 2024 3 7 12 red "
    "blue big the_economy photosynthesis a_sorting_algorithm JSON football chess apples oranges "
    "books Germany winter the_sea wine mathematics machine_learning a_robot school happiness 57"
).replace("_", "  ").split(" ")


def off_prompt(rng: Random) -> str:
    """A prompt that is not a chain: small talk, questions, code, other scripts, noise."""
    if rng.random() < 0.15:
        return noise(rng)
    text = rng.choice(_ASKS)
    while "{}" in text:
        thing = rng.choice(_THINGS) if rng.random() < 0.7 else letters(rng)
        text = text.replace("{}", thing or "the", 1)
    return text if rng.random() < 0.8 else text.lower()


def letters(rng: Random) -> str:
    return "".join(rng.choice("aeiouaeioubcdfghklmnprstvw") for _ in range(rng.randint(2, 9)))


def noise(rng: Random) -> str:
    if rng.random() < 0.6:
        return " ".join(letters(rng) for _ in range(rng.randint(1, 9)))
    return "".join(chr(rng.choice((rng.randint(33, 126), rng.randint(161, 0x4FF)))) for _ in range(12))
