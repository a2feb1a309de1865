"""Parses and compares answers in LaTeX with math-verify, in a separate process.

Scores do not depend on wall-clock time: math-verify's own timeouts are disabled, and each request
is limited in CPU time instead. Over the limit the kernel kills the process, whatever it computes.
`proctor.evaluation.math_scorer` starts this process and sends the requests.
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
"""CPU time of one request; some hundredths of a second are usual."""

MEMORY = 4 * 2**30
"""Bytes of address space; beyond it MemoryError is raised, which math-verify treats as unequal."""

BOX = r"\boxed"


def is_readable(right: str) -> bool:
    """Return whether the right answer can be parsed."""
    return bool(_parse_right(right))


def is_equal(answer: str, right: str) -> bool:
    """Return whether an answer's last box, or else its last expression, equals the right answer."""
    return bool(verify(_parse_right(right), _parse(answer), timeout_seconds=None))


def to_sympy(answer: str) -> str | None:
    """Return an answer's last box, or else its last expression, as SymPy prints it.

    Return None if there is neither.
    """
    parsed = _parse(answer)
    try:
        return str(parsed[0]) if parsed else None
    except RecursionError:
        return None


FUNCTIONS = {each.__name__: each for each in (is_readable, is_equal, to_sympy)}


def serve() -> None:
    """Answer requests on stdin, one line of JSON each; print an empty line when ready."""
    # Output that libraries print goes to stderr instead.
    responses = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it, and ends this one
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of disabled timeouts
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.set_int_max_str_digits(0)  # CPU time and memory are limited instead
    print(file=responses, flush=True)
    for line in sys.stdin:
        name, *texts = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        answer = FUNCTIONS[name](*texts)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=responses, flush=True)


def _parse(answer: str) -> list[Any]:
    """Parse the text from the last box on; an earlier one is a step, or was retracted."""
    parsed: list[Any] = parse(answer[max(answer.rfind(BOX), 0) :], parsing_timeout=None)
    return parsed


def _parse_right(right: str) -> list[Any]:
    """Parse a right answer of a dataset, with or without a box or dollar signs around it."""
    boxed = right if BOX in right else f"{BOX}{{{right}}}"
    parsed: list[Any] = parse(boxed, parsing_timeout=None)
    return parsed
