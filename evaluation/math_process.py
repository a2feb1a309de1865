"""Reads and compares answers in LaTeX with math-verify, in a process of its own.

No answer is judged by a clock: math-verify's own time limits are off, and each question has so
much of the processor instead, whatever else the machine does. Beyond it the system ends the
process, within a computation of any kind. See `proctor.evaluation.math_scorer`, which asks.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from math_verify import parse, verify

CPU_SECONDS = 20.0
"""For one question; what can be judged takes some hundredths."""

MEMORY = 4 * 2**30
"""Bytes of addresses; what takes more raises MemoryError, which math-verify takes for a No."""

BOX = r"\boxed"


def is_readable(right: str) -> bool:
    """Whether it is clear what is right."""
    return bool(_read_right(right))


def is_equal(answer: str, right: str) -> bool:
    """Whether an answer's last box, or else its last expression, equals the right one."""
    return bool(verify(_read_right(right), _read(answer), timeout_seconds=None))


def in_sympy(answer: str) -> str | None:
    """The same, in SymPy's own writing; None if there is nothing."""
    found = _read(answer)
    try:
        return str(found[0]) if found else None
    except RecursionError:
        return None


QUESTIONS = {each.__name__: each for each in (is_readable, is_equal, in_sympy)}


def serve() -> None:
    """Answer what comes, a line of JSON each, until there is no more; first say that it can."""
    # What libraries print is no answer.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is interrupted, and ends this
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of what is meant to be
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.set_int_max_str_digits(0)  # they are bounded otherwise
    print(file=told, flush=True)
    for line in sys.stdin:
        name, *texts = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        answer = QUESTIONS[name](*texts)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=told, flush=True)


def _read(answer: str) -> list[Any]:
    """What stands from the last box on: an earlier one was a step, or was taken back."""
    found: list[Any] = parse(answer[max(answer.rfind(BOX), 0) :], parsing_timeout=None)
    return found


def _read_right(right: str) -> list[Any]:
    """What is right, as datasets give it: without a box or dollars around it, or with them."""
    boxed = right if BOX in right else f"{BOX}{{{right}}}"
    found: list[Any] = parse(boxed, parsing_timeout=None)
    return found
