"""Calendars: weekdays and dates after a number of days."""

from random import Random

from bench.curation.kinds.base import Line, Problem, calculate, plural
from bench.curation.kinds.words import DAYS, MONTHS, NAMES

EVENTS = (
    "the exam", "the wedding", "the trip", "the concert", "the repair", "the harvest", "the fair",
    "the match", "the play", "the party", "the market", "the visit", "the lesson", "the meeting",
    "the race", "the sale", "the dinner", "the flight", "the lecture", "the test",
)  # fmt: skip


def calendars(rng: Random, steps: int) -> Problem:
    """Return a problem about a weekday with as many jumps as steps, or about a date."""
    return _weekday(rng, steps) if rng.random() < 0.5 or steps > 3 else _date(rng, steps)


def _weekday(rng: Random, steps: int) -> Problem:
    name, event, *others = rng.choice(NAMES), *rng.sample(EVENTS, steps + 1)
    start = rng.randrange(7)
    jumps = [rng.choice([-1, 1]) * rng.randint(8, 60) for _ in range(steps)]
    openings = (
        f"{name} marks {DAYS[start]} in the calendar for {event}.",
        f"For {name}, {event} begins on a {DAYS[start]}.",
        f"It is {DAYS[start]}, the day of {event}, says {name}.",
    )
    sentences, lines = [], [Line(f"We start on {DAYS[start]}.")]
    day = start
    for index, jump in enumerate(jumps):
        number = abs(jump)
        where = "after" if jump > 0 else "before"
        subject, following = (event, *others)[index : index + 2]
        sentences.append(
            rng.choice(
                (
                    f"{number} days {where} {subject} comes {following}.",
                    f"{following.capitalize()} is {number} days {where} {subject}.",
                )
            )
        )
        rest = number % 7
        reached = (day + (rest if jump > 0 else -rest)) % 7
        wrong = DAYS[(reached + rng.choice([1, -1])) % 7]
        lines.append(
            Line(f"{number} days are {plural(number // 7, 'week')} and {plural(rest, 'day')}.")
        )
        before = f"{plural(rest, 'day')} {where} {DAYS[day]} is "
        lines.append(Line(f"{before}{DAYS[reached]}.", f"{before}{wrong}."))
        day = reached
    closing = rng.choice(
        (
            f"Which weekday is {others[-1]}?",
            f"On which weekday is {others[-1]}?",
            f"What day of the week is {others[-1]}?",
        )
    )
    question = " ".join([rng.choice(openings), *sentences, closing])
    facts = {"family": "weekday", "start": start, "jumps": jumps}
    return Problem("calendars", steps, question, lines, DAYS[day], facts)


def _date(rng: Random, steps: int) -> Problem:
    """Return a problem whose date lies as many months later as there are steps."""
    name, event = rng.choice(NAMES), rng.choice(EVENTS)
    month = rng.randrange(12 - steps)
    day = rng.randint(2, MONTHS[month][1] - 1)
    goal = rng.randint(1, 28)
    days = MONTHS[month][1] - day + sum(length for _, length in MONTHS[month + 1 : month + steps])
    days += goal
    start = f"{day} {MONTHS[month][0]}"
    texts = (
        f"In no leap year, {name} plans {event} for {days} days after {start}. What date is that?",
        f"The year is no leap year. From {start} on, {name} waits {days} days for {event}. Which "
        "date is it?",
        f"In a year without 29 February, {name} adds {days} days to {start} to find {event}. "
        "Which date is it?",
    )
    lines, left = [Line(f"We go from {start} to the next months.")], days
    used, line = calculate(rng, MONTHS[month][1], "-", day, f"{MONTHS[month][0]} has days left: ")
    lines.append(line)
    left, line = calculate(rng, left, "-", used, "Then remain: ")
    lines.append(line)
    for name_of_month, length in MONTHS[month + 1 : month + steps]:
        left, line = calculate(rng, left, "-", length, f"All of {name_of_month} passes: ")
        lines.append(line)
    answer = f"{left} {MONTHS[month + steps][0]}"
    lines.append(Line(f"The next month is {MONTHS[month + steps][0]}."))
    facts = {"family": "date", "start": (month + 1, day), "days": days}
    return Problem("calendars", steps, rng.choice(texts), lines, answer, facts)
