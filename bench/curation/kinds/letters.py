"""Letters and words: counting, reversing, and picking letters."""

from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, listed, plural
from bench.curation.kinds.words import NAMES, WORDS

ORDINALS = ("first", "second", "third", "fourth", "fifth")


def letters(rng: Random, steps: int) -> Problem:
    """Return a problem about as many words as steps, or about one word if there is one step."""
    families = (_reversed, _counted) if steps == 1 else (_counted, _picked)
    return rng.choice(families)(rng, steps)


def _counted(rng: Random, steps: int) -> Problem:
    words = rng.sample(WORDS, steps)
    text = "".join(words)
    repeated = [each for each in sorted(set(text)) if text.count(each) > 1]
    letter = rng.choice(repeated or sorted(set(text)))
    name, shown = rng.choice(NAMES), listed(words)
    noun = "word" if steps == 1 else "words"
    texts = (
        f"How often does the letter {letter} stand in the {noun} {shown}, by {name}?",
        f"{name} writes {shown}. Count how many times the letter {letter} is used.",
        f"In {name}'s {noun} {shown}, how many letters are {letter}?",
    )
    lines, counts = [], []
    for word in words:
        count = word.count(letter)
        wrong = count + 1 if count == 0 else count - 1
        before = f"{word}: {' '.join(word)} has "
        lines.append(Line(f"{before}{count}.", f"{before}{wrong}."))
        counts.append(count)
    total = counts[0]
    for count in counts[1:]:
        total, line = calculate(rng, total, "+", count, "Together: ")
        lines.append(line)
    if steps == 1:
        lines.insert(0, Line(f"We spell the word and count {letter}."))
        lines.append(
            Line(f"It has {plural(len(words[0]), 'letter')} in all, {total} of them {letter}.")
        )
    facts = {"family": "counted", "words": words, "letter": letter}
    return Problem("letters", steps, rng.choice(texts), lines, str(total), facts)


def _reversed(rng: Random, steps: int) -> Problem:
    word, name = rng.choice(WORDS), rng.choice(NAMES)
    texts = (
        f"{name} reads the word {word} from its last letter to its first. What does it give?",
        f"Write {word} backwards, as {name} does in a game.",
        f"In {name}'s mirror the letters of {word} stand in reverse order. What can be read there?",
    )
    turned = word[::-1]
    swapped = turned[1] + turned[0] + turned[2:]
    lines = [
        Line(f"The letters of {word} are {' '.join(word)}."),
        Line(
            f"From the last to the first: {' '.join(turned)}.",
            f"From the last to the first: {' '.join(swapped)}.",
        ),
        Line("Put them together."),
    ]
    facts = {"family": "reversed", "words": [word]}
    return Problem("letters", steps, rng.choice(texts), lines, turned, facts)


def _picked(rng: Random, steps: int) -> Problem:
    words = rng.sample(WORDS, steps + 1)
    place, name = rng.randrange(min(5, *map(len, words))), rng.choice(NAMES)
    texts = (
        f"{name} takes the {ORDINALS[place]} letter of each of the words {listed(words)}. What do "
        "they spell?",
        f"{name} joins the {ORDINALS[place]} letters of {listed(words)}. Which letters does that "
        "give, in this order?",
        f"A code of {name}'s uses the {ORDINALS[place]} letter of every word: {', '.join(words)}. "
        "What is the code?",
    )
    lines = []
    for word in words:
        wrong = next((each for each in word if each != word[place]), word[place])
        before = f"{word} is {' '.join(word)}; its {ORDINALS[place]} letter is "
        lines.append(Line(f"{before}{word[place]}.", f"{before}{wrong}."))
    answer = "".join(word[place] for word in words)
    facts = {"family": "picked", "words": words, "place": place}
    return Problem("letters", steps, rng.choice(texts), lines, answer, facts)
