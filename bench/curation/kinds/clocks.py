"""Times of day after several durations: a kind that is never trained on."""

from random import Random

from bench.curation.kinds.base import Line, Problem, calculate
from bench.curation.kinds.words import NAMES

ACTIVITIES = (
    "reads",
    "cooks",
    "walks",
    "paints",
    "rests",
    "repairs a chair",
    "plays chess",
    "writes",
)


def clocks(rng: Random, steps: int) -> Problem:
    """Return a problem with as many durations as steps."""
    name, *activities = rng.choice(NAMES), *rng.sample(ACTIVITIES, steps)
    start = rng.randint(6 * 60, 11 * 60)
    durations = [rng.randint(5, 130) for _ in range(steps)]
    parts = [
        f"{activity} for {_duration(minutes)}"
        for activity, minutes in zip(activities, durations, strict=True)
    ]
    texts = (
        f"At {_time(start)} {name} begins: {name} {', then '.join(parts)}. What time is it then?",
        f"{name} gets up at {_time(start)} and {', then '.join(parts)}. When does that end?",
        f"It is {_time(start)}. {name} {', then '.join(parts)}. What does the clock show then?",
    )
    total, line = calculate(rng, start // 60, "*", 60, "In minutes, the full hours are ")
    lines = [line]
    total, line = calculate(rng, total, "+", start % 60, "The start is at ")
    lines.append(line)
    for minutes in durations:
        total, line = calculate(rng, total, "+", minutes, "Then ")
        lines.append(line)
    lines.append(Line(f"{total} minutes are {total // 60} hours and {total % 60} minutes."))
    facts = {"start": start, "durations": durations}
    return Problem("clocks", steps, rng.choice(texts), lines, _time(total), facts)


def _time(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _duration(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} minutes"
    return f"{hours} {'hour' if hours == 1 else 'hours'} and {rest} minutes"
