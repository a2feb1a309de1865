"""Texts for the loop corpus: thinking that makes progress, and thinking that loops.

`PROGRESS` has writers of whole texts, most of them of kinds that look repetitive and are not.
`LOOPS` has writers of endless copies. All randomness comes in as `Random`.
"""

import json
from collections.abc import Callable, Iterator
from random import Random

from proctor.demo.world import Passes, draw_problem, slip, two_digits

# --- words to write with ---------------------------------------------------------------------

NAMES = [
    "Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kira", "Leo", "Mia",
    "Noor", "Otto", "Pia", "Quin", "Rosa", "Sam", "Tara",
]  # fmt: skip
THINGS = [
    "apple", "book", "candle", "door", "engine", "flower", "garden", "hammer", "island", "jacket",
    "kettle", "ladder", "mirror", "needle", "orange", "pencil", "quilt", "river", "saddle", "table",
    "umbrella", "valley", "window", "yard", "zebra", "bottle", "carpet", "drum", "eagle", "fence",
    "glove", "harbour", "insect", "jar", "king", "lamp", "market", "notebook", "ocean", "pocket",
    "road", "shelf", "tunnel",
]  # fmt: skip
VERBS = [
    "takes", "gives", "finds", "moves", "sells", "paints", "counts", "breaks", "carries", "sorts",
    "hides", "opens", "fixes", "wants",
]  # fmt: skip
QUALITIES = [
    "red", "small", "heavy", "old", "quiet", "bright", "narrow", "wooden", "cheap", "cold", "early",
    "empty", "famous", "gentle", "hollow", "round", "sharp", "simple", "tall", "warm",
]  # fmt: skip
PLACES = [
    "north", "south", "market", "hill", "station", "school", "river", "coast", "village", "office",
    "kitchen", "workshop",
]  # fmt: skip
FIELDS = [
    "id", "name", "age", "score", "price", "count", "x", "y", "width", "height", "temperature",
    "humidity", "status", "city", "date",
]  # fmt: skip
LINKS = (
    "Then", "After that", "Meanwhile", "So", "Because of this", "Still", "Later", "In the end",
    "On the other hand", "For example", "Of course", "This means that", "Now", "Next",
)  # fmt: skip


def sentence(rng: Random) -> str:
    """One plain sentence; hundreds of thousands are possible."""
    r = rng.choice
    subject = r(
        (r(NAMES), f"the {r(QUALITIES)} {r(THINGS)}", f"a {r(THINGS)} from the {r(PLACES)}")
    )
    core = f"{subject} {r(VERBS)} {r(('the', 'one', 'every'))} {r(QUALITIES)} {r(THINGS)}"
    tail = r((
        "", f" near the {r(PLACES)}", f" with {rng.randint(2, 40)} {r(THINGS)}s",
        f", and {r(NAMES)} {r(VERBS)} the {r(THINGS)}",
        f" before the {r(THINGS)} is {r(QUALITIES)}",
    ))  # fmt: skip
    text = core + tail + r((".", ".", ".", "!", "?"))
    text = f"{r(LINKS)} {text}" if rng.random() < 0.5 else text
    return text[0].upper() + text[1:]


def paragraph(rng: Random, fewest: int = 3, most: int = 7) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(fewest, most)))


def several(rng: Random, fewest: int, most: int, write: Callable[[Random], str]) -> str:
    return "".join(write(rng) for _ in range(rng.randint(fewest, most)))


# --- traces that do not loop -----------------------------------------------------------------


def prose(rng: Random) -> str:
    return "\n\n".join(paragraph(rng) for _ in range(rng.randint(3, 14)))


def chain(rng: Random) -> str:
    """The demo's world: a hasty pass with slips, rechecks until all is right, one look more."""
    passes = Passes(draw_problem(rng, rng.randint(3, 12)))
    lines: list[str] = []

    def redo() -> None:
        value, results = passes.problem.start, list(passes.claims[: passes.checked])
        value = results[-1] if results else value
        for step in passes.problem.steps[passes.checked :]:
            value = step.apply(value)
            value = slip(rng, value) if rng.random() < 0.25 else value
            results.append(value)
        lines.extend(f"{head}{result}\n" for head, result, _ in passes.hasty(results))

    redo()
    while not passes.done:
        lines.append(f"so {two_digits(passes.claims[-1])}\nWait, check:\n")
        lines.extend(passes.recheck())
        if not passes.done:
            redo()
    lines.extend(
        f"Wait, all ok {two_digits(passes.claims[-1])}\n" for _ in range(rng.randint(0, 3))
    )
    return "".join(lines)


def chains(rng: Random) -> str:
    return several(rng, 1, 3, chain)


def long_division(rng: Random) -> str:
    divisor, dividend = rng.randint(3, 99), rng.randint(10**7, 10 ** rng.randint(8, 24))
    lines, rest, quotient = [f"{dividend} / {divisor}, digit by digit.\n"], 0, ""
    for digit in str(dividend):
        rest = rest * 10 + int(digit)
        q = rest // divisor
        quotient += str(q)
        lines.append(
            f"Bring down {digit}: {rest}. {divisor} goes {q} times, {q} * {divisor} = "
            f"{q * divisor}, remainder {rest - q * divisor}.\n"
        )
        rest -= q * divisor
    return "".join(lines) + f"So the quotient is {int(quotient)}, remainder {rest}.\n"


def column_sums(rng: Random) -> str:
    """A long listing of sums, one under the other."""
    total, lines = rng.randint(1, 99), []
    for _ in range(rng.randint(10, 60)):
        add = rng.randint(1, 400)
        lines.append(f"{total} + {add} = {total + add}\n")
        total += add
    return "".join(lines)


def products(rng: Random) -> str:
    """Products split into partial products, several times, each checked once."""

    def one(rng: Random) -> str:
        a, b = rng.randint(12, 99), rng.randint(12, 99)
        tens, ones = b // 10 * 10, b % 10
        work = f"{a} * {b} = {a} * {tens} + {a} * {ones} = {a * tens} + {a * ones} = {a * b}"
        return f"{work}. Let me check: {work}. Yes, {a * b}.\n"

    return several(rng, 4, 14, one)


def trial_division(rng: Random) -> str:
    """A brute-force search that does get somewhere."""
    number, lines = rng.choice((1009, 2027, 3001, 1517, 2491, 4087)), []
    for divisor in range(2, rng.randint(14, 40)):
        q, rest = divmod(number, divisor)
        verdict = "Yes." if rest == 0 else f"Remainder {rest}, so no."
        lines.append(
            f"Is {number} divisible by {divisor}? {divisor} * {q} = {divisor * q}. {verdict}\n"
        )
    return "".join(lines)


def residues(rng: Random) -> str:
    modulus, wanted = rng.randint(7, 13), rng.randint(0, 6)
    lines = [f"Try every n modulo {modulus} for n^2 + n + {wanted}.\n"]
    for n in range(rng.randint(modulus, 3 * modulus)):
        value = n * n + n + wanted
        lines.append(
            f"n = {n}: n^2 + n + {wanted} = {value}, which is {value % modulus} mod {modulus}.\n"
        )
    return "".join(lines)


def powers(rng: Random) -> str:
    base, modulus, value, lines = rng.randint(2, 9), rng.randint(50, 999), 1, []
    for exponent in range(1, rng.randint(12, 40)):
        product = value * base
        value = product % modulus
        lines.append(f"{base}^{exponent} = {product} mod {modulus} = {value}\n")
    return "".join(lines)


def euclid(rng: Random) -> str:
    def one(rng: Random) -> str:
        a, b = rng.randint(10**4, 10**6), rng.randint(10**3, 10**5)
        lines = [f"gcd({a}, {b}):\n"]
        while b:
            lines.append(f"{a} = {a // b} * {b} + {a % b}\n")
            a, b = b, a % b
        return "".join(lines) + f"so the gcd is {a}.\n"

    return several(rng, 1, 5, one)


def multiplication_table(rng: Random) -> str:
    first, last, to = rng.randint(1, 9), rng.randint(10, 14), rng.randint(5, 12)
    sign = rng.choice(("x", "*", "times"))
    rows = [f"{a} {sign} {b} = {a * b}\n" for a in range(first, last) for b in range(1, to + 1)]
    return "".join(rows)


def grid_of_products(rng: Random) -> str:
    size = rng.randint(6, 15)
    head = (
        "| x | " + " | ".join(map(str, range(1, size + 1))) + " |\n" + "|---" * (size + 1) + "|\n"
    )
    rows = [
        f"| {a} | " + " | ".join(str(a * b) for b in range(1, size + 1)) + " |\n"
        for a in range(1, size + 1)
    ]
    return head + "".join(rows)


def truth_table(rng: Random) -> str:
    weights = "pqrstuv"[: rng.randint(2, 5)]
    true, false = rng.choice((("T", "F"), ("1", "0")))
    columns = rng.randint(1, 4)
    head = "| " + " | ".join([*weights, *(f"f{c}" for c in range(columns))]) + " |\n"
    head += "|---" * (len(weights) + columns) + "|\n"
    rows = []
    for row in range(2 ** len(weights)):
        bits = [row >> i & 1 for i in reversed(range(len(weights)))]
        bits += [rng.randint(0, 1) for _ in range(columns)]
        rows.append("| " + " | ".join(true if bit else false for bit in bits) + " |\n")
    return head + "".join(rows)


def column(rng: Random) -> Callable[[int], str]:
    """How the cells of one column are drawn, given the row's number."""
    kinds: tuple[Callable[[int], str], ...] = (
        str,
        lambda row: rng.choice(NAMES),
        lambda row: rng.choice(THINGS),
        lambda row: str(rng.randint(0, 999)),
        lambda row: f"{rng.uniform(0, 100):.2f}",
        lambda row: f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
    )
    return rng.choice(kinds)


def rows(rng: Random, width: int, fewest: int, most: int) -> list[list[str]]:
    """The cells of a table's rows."""
    columns = [column(rng) for _ in range(width)]
    return [[draw(row) for draw in columns] for row in range(1, rng.randint(fewest, most))]


def table(rng: Random) -> str:
    names = rng.sample(FIELDS, rng.randint(3, 8))
    rule = ["-" * rng.randint(3, 12) for _ in names]
    head = f"| {' | '.join(names)} |\n|{'|'.join(rule)}|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows(rng, len(names), 5, 41))


def csv(rng: Random) -> str:
    names = rng.sample(FIELDS, rng.randint(3, 8))
    return "".join(",".join(row) + "\n" for row in [names, *rows(rng, len(names), 8, 60)])


def json_list(rng: Random) -> str:
    names = rng.sample(FIELDS, rng.randint(2, 6))
    records = [dict(zip(names, row, strict=True)) for row in rows(rng, len(names), 5, 40)]
    return json.dumps(records, indent=rng.choice((None, None, 2))) + "\n"


def inserts(rng: Random) -> str:
    values = rows(rng, rng.randint(2, 5), 5, 30)
    return "".join(f"INSERT INTO users VALUES ({', '.join(row)});\n" for row in values)


def log_lines(rng: Random) -> str:
    second, lines = rng.randint(0, 3000), []
    for _ in range(rng.randint(8, 40)):
        second += rng.randint(1, 90)
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        level = rng.choice(("INFO", "INFO", "WARN", "DEBUG"))
        lines.append(
            f"{clock} {level} {rng.choice(THINGS)} {rng.choice(VERBS)} {rng.randint(1, 500)} ms\n"
        )
    return "".join(lines)


def function(rng: Random) -> str:
    name, a, b = rng.choice(THINGS), *rng.sample(THINGS, 2)
    body = [
        f"def {name}({a}, {b}):\n",
        f'    """{sentence(rng)}"""\n',
        f"    {b}s = [{a} * {rng.randint(2, 9)} for {a} in range({rng.randint(2, 99)})]\n",
    ]
    statements = (
        f"    if {a} {rng.choice(('<', '>', '=='))} {rng.randint(0, 99)}:\n        return {b}\n",
        f"    for {rng.choice(THINGS)} in {b}s:\n        {a} += {rng.randint(1, 9)}\n",
        f"    {a} = {b} {rng.choice('+-*')} {rng.randint(1, 99)}\n",
        f"    print({a}, len({b}s))\n",
        f"    {b}s.append({a} % {rng.randint(2, 99)})\n",
    )
    body += rng.sample(statements, rng.randint(1, 5))
    return "".join(body) + f"    return {a}\n\n\n"


def code(rng: Random) -> str:
    return several(rng, 2, 10, function)


def drafts(rng: Random) -> str:
    """A program written, changed in places and written again, as models do in their thinking."""
    lines = several(rng, 1, 3, function).splitlines(keepends=True)
    text = "Let me write it.\n" + "".join(lines)
    for _ in range(rng.randint(1, 3)):
        for at in rng.sample(range(1, len(lines)), rng.randint(1, 3)):
            lines[at] = f"    {rng.choice(THINGS)} = {rng.choice(THINGS)} + {rng.randint(1, 99)}\n"
        text += f"Wait. {sentence(rng)} So I change that.\n" + "".join(lines)
    return text


def restated(rng: Random) -> str:
    """A draft, a remark, and the same draft word by word as the final version."""
    draft = rng.choice((paragraph(rng, 3, 12), several(rng, 1, 3, function)))
    remark = f"{sentence(rng)} So the final version:\n"
    return f"{paragraph(rng, 1, 2)}\n{draft}\n{remark}{draft}\n{paragraph(rng, 1, 2)}"


def asserts(rng: Random) -> str:
    name = rng.choice(THINGS)
    rows = [
        f"assert {name}({n}, {rng.randint(0, 99)}) == {rng.randint(0, 999)}\n"
        for n in range(rng.randint(5, 25))
    ]
    return "".join(rows)


def simulation(rng: Random) -> str:
    """A loop in code, run by hand."""
    total, step, lines = 0, rng.randint(2, 9), ["Run the loop by hand.\n"]
    for i in range(rng.randint(8, 30)):
        total += i * step
        even = "even" if total % 2 == 0 else "odd"
        lines.append(f"i = {i}: total = total + {i} * {step} = {total}, which is {even}.\n")
    return "".join(lines)


def cases(rng: Random) -> str:
    """A proof by cases whose cases read alike."""
    modulus = rng.randint(3, 9)
    text = f"Claim: n^2 mod {modulus} takes few values. Write n = {modulus}k + r.\n"
    for r in range(modulus):
        whole, rest = divmod(r * r, modulus)
        text += (
            f"Case {r + 1}: n = {modulus}k + {r}. Then n^2 = {modulus**2}k^2 + {2 * r * modulus}k "
            f"+ {r * r} = {modulus}({modulus}k^2 + {2 * r}k + {whole}) + {rest}, "
            f"so n^2 leaves the remainder {rest}.\n"
        )
    return text + paragraph(rng, 1, 3) + "\n"


def choices(rng: Random) -> str:
    """All pairs or triples out of a few things."""
    weights, size = rng.randint(4, 7), rng.randint(2, 3)
    things = rng.sample(THINGS, weights) if rng.random() < 0.5 else list("ABCDEFG"[:weights])
    rows: list[str] = []

    def extend(chosen: list[str], begin: int) -> None:
        if len(chosen) == size:
            rows.append(f"{len(rows) + 1}. ({', '.join(chosen)})\n")
            return
        for at in range(begin, weights):
            extend([*chosen, things[at]], at + 1)

    extend([], 0)
    return "".join(rows)


def counting(rng: Random) -> str:
    begin, step = rng.randint(0, 50), rng.randint(1, 7)
    joint = rng.choice((", ", "\n", " "))
    return joint.join(str(begin + step * i) for i in range(rng.randint(30, 200))) + "\n"


def matrices(rng: Random) -> str:
    """Small matrices, many of whose entries are zero, worked on row by row."""
    size = rng.randint(3, 6)
    rows = [
        [rng.choice((0, 0, 0, 1, rng.randint(-9, 9))) for _ in range(size)] for _ in range(size)
    ]
    text = ""
    for step in range(rng.randint(1, 4)):
        text += f"Step {step + 1}:\n" + "".join(f"[{', '.join(map(str, row))}]\n" for row in rows)
        at, factor = rng.randrange(size), rng.randint(2, 5)
        rows[at] = [factor * entry for entry in rows[at]]
    return text


def dynamic_programming(rng: Random) -> str:
    """The table of a longest common subsequence, row after row."""
    a = [rng.choice("ACGT") for _ in range(rng.randint(4, 10))]
    b = [rng.choice("ACGT") for _ in range(rng.randint(4, 10))]
    row, text = [0] * (len(b) + 1), f"LCS of {''.join(a)} and {''.join(b)}.\n"
    for letter in a:
        text += f"{row}\n"
        new = [0]
        for at, other in enumerate(b):
            new.append(row[at] + 1 if letter == other else max(new[-1], row[at + 1]))
        row = new
    return text + f"{row}\n"


def plan(rng: Random) -> str:
    bullet = rng.choice(("- ", "* ", "{}. ", "Step {}: "))
    return "".join(f"{bullet.format(n)}{sentence(rng)}\n" for n in range(1, rng.randint(6, 30)))


def rechecks(rng: Random) -> str:
    """A word problem solved, doubted and solved again in other words, with the same numbers."""
    a, b, c = rng.randint(3, 40), rng.randint(3, 40), rng.randint(2, 9)
    who, thing = rng.choice(NAMES), rng.choice(THINGS)
    ways = [
        f"{who} has {a} {thing}s, gets {b} more: {a} + {b} = {a + b}. Times {c} is {(a + b) * c}.",
        f"First the sum: {a} + {b} = {a + b}. Then the product: {a + b} * {c} = {(a + b) * c}.",
        f"Another way: {a} * {c} = {a * c} and {b} * {c} = {b * c}, together {(a + b) * c}.",
        f"Backwards: {(a + b) * c} / {c} = {a + b}, and {a + b} - {b} = {a}. That fits.",
        f"Roughly {round(a, -1)} plus {round(b, -1)}, times {c}: near {(a + b) * c}. Good.",
    ]
    doubts = [
        "Wait, let me check that again.", "Hmm, is that right?", "But wait.", "Let me verify.",
        "Wait, did I read the question right?", "Alternatively:",
    ]  # fmt: skip
    rng.shuffle(ways)
    text = f"{paragraph(rng, 1, 3)}\n"
    for way in ways[: rng.randint(2, 5)]:
        text += f"{way}\n{rng.choice(doubts)} "
    return text + f"So the answer is {(a + b) * c}.\n"


def mixed(rng: Random) -> str:
    """A long thinking: several of the others, one after the other."""
    kinds = [kind for kind in PROGRESS.values() if kind is not mixed]
    return "\n".join(rng.choice(kinds)(rng) for _ in range(rng.randint(2, 4)))


PROGRESS: dict[str, Callable[[Random], str]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        prose, chains, long_division, column_sums, products, trial_division, residues, powers,
        euclid, multiplication_table, grid_of_products, truth_table, table, csv, json_list, inserts,
        log_lines, code, drafts, restated, asserts, simulation, cases, choices, counting, matrices,
        dynamic_programming, plan, rechecks, mixed,
    )
}  # fmt: skip


# --- traces that loop ------------------------------------------------------------------------
# Each gives the copies of a loop, one after the other, without end.


def changing_number(rng: Random) -> Iterator[str]:
    """The same sentence with a number that changes."""
    a, b, n = rng.randint(11, 99), rng.randint(11, 99), rng.randint(1, 60)
    thing, who, place = rng.choice(THINGS), rng.choice(NAMES), rng.choice(PLACES)
    text = rng.choice((
        "Wait, maybe the answer is {}. Let me check. No, that does not work.\n",
        f"If {who} has {{}} {thing}s, then the number of them at the {place} is not whole.\n",
        f"Let me try {{}}: that does not fit, because {who} {rng.choice(VERBS)} the {thing}. ",
        f"So the total is {a} plus {b}, which gives {{}}. But the problem says otherwise. Hmm. ",
        "Perhaps I should look at the case where x is equal to {}. That is a contradiction.\n",
        f"Since the {rng.choice(QUALITIES)} {thing} is number {{}}, I look at the next one.\n\n",
    ))  # fmt: skip
    steps = rng.choice((0, 1, 1, 2, 10))
    while True:
        yield text.format(n)
        n = n + steps if steps else rng.randint(0, 99)


def counter(rng: Random) -> Iterator[str]:
    """A counter without an end."""
    n = rng.randint(1, 200)
    thing = rng.choice(THINGS)
    text = rng.choice((
        "Attempt {}: that does not work either, let me try once more.\n",
        f"Step {{}}: look at the {thing} again and go on to the next step.\n",
        f"{{}}. Check the {rng.choice(QUALITIES)} {thing} near the {rng.choice(PLACES)}.\n",
        "Iteration {}. No change. I will continue with the next iteration.\n",
        "(Check number {}) Everything seems to be correct so far. Moving on.\n",
    ))  # fmt: skip
    while True:
        yield text.format(n)
        n += 1


def recheck_cycle(rng: Random) -> Iterator[str]:
    """The same recheck again and again, in slightly varied words."""
    a, b = rng.randint(12, 99), rng.randint(12, 99)
    tens, ones = b // 10 * 10, b % 10
    opening = rng.sample((
        "Wait, let me check that again.", "Hmm, let me double-check.", "Wait, is that right?",
        "But wait, let me verify this once more.", "Let me recheck the calculation.",
    ), rng.randint(1, 3))  # fmt: skip
    closing = rng.sample((
        "So the answer is {}.", "Yes, {}.", "That gives {} again.", "The result is still {}.",
    ), rng.randint(1, 2))  # fmt: skip
    work = f" {a} * {b} = {a} * {tens} + {a} * {ones} = {a * tens} + {a * ones} = {a * b}. "
    while True:
        yield rng.choice(opening) + work + rng.choice(closing).format(a * b) + "\n"


def punctuation(rng: Random) -> Iterator[str]:
    """A cycle of punctuation, in which a mark is now and then doubled or left out."""
    marks = [
        rng.choice(("...", "!", "?", ".", "!!", "?!", "…", " .", " ..."))
        for _ in range(rng.randint(1, 12))
    ]
    joint, jitter = rng.choice(("", " ", "\n")), rng.choice((0.0, 0.02, 0.05))
    while True:
        copy = [
            mark
            for mark in marks
            for _ in range(rng.choice((0, 2)) if rng.random() < jitter else 1)
        ]
        yield joint.join(copy) + joint


def two_paragraphs(rng: Random) -> Iterator[str]:
    """Two sentences that alternate."""
    first = f"{paragraph(rng, 1, 2)} So it must be the {rng.choice(THINGS)}.\n\n"
    second = (
        f"But wait. {paragraph(rng, 1, 2)} So it must be the {rng.choice(THINGS)} after all.\n\n"
    )
    while True:
        yield first + second


def small_edits(rng: Random) -> Iterator[str]:
    """A paragraph in which one word in forty changes from copy to copy."""
    words = paragraph(rng, 2, 4).split(" ")
    while True:
        copy = [rng.choice(QUALITIES) if rng.random() < 0.025 else word for word in words]
        yield " ".join(copy) + "\n"


def same_code(rng: Random) -> Iterator[str]:
    """The same function, written over and over with a remark between."""
    text = function(rng)
    remarks = [f"# {sentence(rng)}\n" for _ in range(rng.randint(1, 3))]
    while True:
        yield text + rng.choice(remarks)


LOOPS: dict[str, Callable[[Random], Iterator[str]]] = {
    loop.__name__.replace("_", " "): loop
    for loop in (
        changing_number, counter, recheck_cycle, punctuation, two_paragraphs, small_edits,
        same_code,
    )
}  # fmt: skip
