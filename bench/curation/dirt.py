"""The dirt of real pools, planted in a clean one at known places."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from bench.curation.kinds.base import Problem
from bench.curation.pool import ENDINGS, Pool
from proctor.curation.rows import Row


@dataclass(frozen=True, slots=True)
class Label:
    """What was planted.

    Attributes:
        id: the row's.
        dirt: what is wrong with the row.
    """

    id: str
    dirt: str


Spoil = Callable[[Row, Random], Row]
"""Makes a dirty row of a clean one."""

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I am not able to answer this question.",
    "I cannot assist with that.",
)
FIGURES = (
    "As shown in the figure below, {}",
    "![diagram](images/{number}.png) {}",
    "{} See the picture.",
    "Refer to the image. {}",
)
GIVEN_AWAY = (
    "The answer is {answer}.",
    "I already know that the answer is {answer}.",
    "Given that the final answer is {answer}, we only have to show it.",
)
REWORDINGS: tuple[Callable[[str], str], ...] = (
    lambda text: f"Please answer this: {text}",
    lambda text: f"{text} Explain your answer.",
    lambda text: text.replace(".", " .").replace("?", " ?"),
    lambda text: text.upper(),
    lambda text: text.replace("How many", "What number of").replace("What is", "Tell me"),
)
NOTES = ("naïve", "café", "“so”", "…", "—")
"""Texts that break when UTF-8 is read as Latin-1."""

TOO_EASY = (
    ("What is {a} + {b}?", "+"),
    ("{name} has {a} apples and gets {b} more. How many are there?", "+"),
    ("Add {a} and {b} for {name}.", "+"),
)


def exact_duplicate(row: Row, rng: Random) -> Row:
    """Return the row itself."""
    return row


def near_duplicate(row: Row, rng: Random) -> Row:
    """Reword the question slightly; the numbers stay."""
    reworded = [text for each in REWORDINGS if (text := each(row.question)) != row.question]
    return replace(row, question=rng.choice(reworded))


def truncated(row: Row, rng: Random) -> Row:
    """Cut the trace inside a line of its first two thirds."""
    position = rng.randint(len(row.trace) // 4, 2 * len(row.trace) // 3)
    return replace(row, trace=row.trace[:position].rstrip(".\n "))


def looping(row: Row, rng: Random) -> Row:
    """Repeat a line of the trace, or two."""
    lines = row.trace.split("\n")
    start = rng.randrange(len(lines) - 1)
    repeated = lines[start : start + rng.randint(1, 2)]
    return replace(row, trace="\n".join([*lines[:start], *repeated * rng.randint(12, 30)]))


def wrong(row: Row, rng: Random) -> Row:
    """End the trace with a wrong answer, which is the row's answer too."""
    answer = _other_answer(row, rng)
    lines = [*row.trace.split("\n")[:-1], rng.choice(ENDINGS).format(answer)]
    return replace(row, trace="\n".join(lines), answer=answer)


def unrelated_answer(row: Row, rng: Random) -> Row:
    """Answer something other than the trace's last line says."""
    return replace(row, answer=_other_answer(row, rng))


def mojibake(row: Row, rng: Random) -> Row:
    """Read UTF-8 as Latin-1 or Windows-1252, or lose a character."""
    note = rng.choice(NOTES)
    broken = rng.choice((note.encode().decode("cp1252", "replace"), f"na{chr(0xFFFD)}ve"))
    lines = row.trace.split("\n")
    place = rng.randrange(len(lines))
    lines[place] = f"{broken} {lines[place]}"
    return replace(row, trace="\n".join(lines))


def refusal(row: Row, rng: Random) -> Row:
    """Refuse, in the trace or in the answer."""
    text = rng.choice(REFUSALS)
    if rng.random() < 0.5:
        return replace(row, answer=text)
    return replace(row, trace=f"{text}\n{text}", answer=text)


def image_reference(row: Row, rng: Random) -> Row:
    """Refer to a picture that is not there."""
    text = rng.choice(FIGURES).format(row.question, number=rng.randint(1, 999))
    return replace(row, question=text)


def answer_given_away(row: Row, rng: Random) -> Row:
    """Begin the trace with the answer."""
    line = rng.choice(GIVEN_AWAY).format(answer=row.answer)
    return replace(row, trace=f"{line}\n{row.trace}")


def too_easy(row: Row, rng: Random) -> Row:
    """Ask for a sum of two digits."""
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    text, sign = rng.choice(TOO_EASY)
    name = rng.choice(("Anna", "Ben", "Mia", "Tom"))
    return replace(
        row,
        question=f"{text.format(a=a, b=b, name=name)} ({rng.randint(1000, 9999)})",
        trace=f"{a} {sign} {b} = {a + b}.\nSo the answer is {a + b}.",
        answer=str(a + b),
        reference=str(a + b),
        domain="arithmetic",
    )


COPIES: dict[str, Spoil] = {"exact duplicate": exact_duplicate, "near duplicate": near_duplicate}
SPOILS: dict[str, Spoil] = {
    "truncated trace": truncated,
    "loop": looping,
    "wrong answer": wrong,
    "answer not of the trace": unrelated_answer,
    "encoding damage": mojibake,
    "refusal": refusal,
    "image reference": image_reference,
    "answer given away": answer_given_away,
    "too easy": too_easy,
}
CONTAMINATION = "contamination"
DIRT = (*COPIES, *SPOILS, CONTAMINATION)


def plant(pool: Pool, each: int, seed: int) -> tuple[list[Row], list[Label]]:
    """Return the pool's rows with dirty ones among them, and the labels of these.

    Spoilt rows take the places of clean ones. Copies come after what they are copies of.

    Args:
        pool: the clean pool.
        each: the number of dirty rows of each kind of dirt; of leaks at most one for each held-out
            question.
        seed: what all of it follows from.
    """
    rng = Random(f"{seed} dirt")
    spoilt = rng.sample(range(len(pool.rows)), each * len(SPOILS))
    dirt_of = dict(zip(spoilt, [name for name in SPOILS for _ in range(each)], strict=True))
    placed: list[tuple[float, Row, str]] = []
    for index, row in enumerate(pool.rows):
        dirt = dirt_of.get(index, "")
        placed.append((index, SPOILS[dirt](row, rng) if dirt else row, dirt))
    clean = [index for index in range(len(pool.rows)) if index not in dirt_of]
    for dirt, copy in COPIES.items():
        for index in rng.sample(clean, each):
            position = rng.uniform(index + 0.1, len(pool.rows))
            placed.append((position, copy(pool.rows[index], rng), dirt))
    held_out = [*pool.seen, *pool.unseen]
    for problem in rng.sample(held_out, min(each, len(held_out))):
        position = rng.uniform(0, len(pool.rows))
        placed.append((position, _contaminated(problem, rng), CONTAMINATION))
    placed.sort(key=lambda place: place[0])
    rows = [replace(row, id=f"q{number:05d}") for number, (_, row, _) in enumerate(placed)]
    dirts = (dirt for _, _, dirt in placed)
    return rows, [Label(row.id, dirt) for row, dirt in zip(rows, dirts, strict=True) if dirt]


def _contaminated(problem: Problem, rng: Random) -> Row:
    """Return a row whose question is held out, sometimes in other spacing, case or numbers."""
    texts = (
        problem.question,
        problem.question.lower(),
        f"Solve: {problem.question}",
        problem.question.replace(" ", "  ", 3),
    )
    lines = [*(line.text for line in problem.lines), ENDINGS[0].format(problem.answer)]
    return Row(
        id="",
        question=rng.choice(texts),
        trace="\n".join(lines),
        answer=problem.answer,
        reference=problem.answer,
        domain=problem.kind,
        source="leaked",
    )


def _other_answer(row: Row, rng: Random) -> str:
    """Return a wrong answer that looks like the right one."""
    if row.answer.isdecimal():
        return str(int(row.answer) + rng.choice((1, 2, 3, 10)))
    if row.answer in ("yes", "no"):
        return "no" if row.answer == "yes" else "yes"
    words = row.answer.split(", ")
    if len(words) > 1:
        return ", ".join([words[1], words[0], *words[2:]])
    return rng.choice([each for each in ("Monday", "Anna", "elred", "12.35") if each != row.answer])
