"""Answers in LaTeX, boxed or not, as math-verify reads them: 1/2 is 0.5, and (1, 2) is a pair.

They are read and compared in a process of its own (`proctor.evaluation.math_process`), so that what
a model wrote takes no more than its share of the processor and of memory, and no clock has a say
in whether it is right. Its own module, as it needs the extra `eval`.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from importlib.util import find_spec
from typing import IO, Any, cast

from proctor.evaluation.scorers import BadScorer, Scorer

if find_spec("math_verify") is None:
    raise ImportError("there is no math_verify")

SERVE = (sys.executable, "-c", "from proctor.evaluation.math_process import serve; serve()")


class TooHard(Exception):
    """A comparison takes more CPU time than it may; see `proctor.evaluation.math_process`."""


class Mathematician:
    """The process that is asked: it is started when it is wanted, and again when it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._asks = 0

    def ask(self, question: str, *texts: str) -> Any:
        """The answer to one of `proctor.evaluation.math_process.QUESTIONS`; from any thread.

        Raises:
            TooHard: if it takes too much.
            BadScorer: if the process cannot be had, or was ended by others.
        """
        with self._lock:
            try:
                return _exchange(self._started(), json.dumps([question, *texts]))
            except BaseException:
                self._end()  # or else its answer would be taken for that to the next question
                raise

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> "subprocess.Popen[str]":
        # After a fork both would read from one process.
        if self._process is None or self._asks != os.getpid():
            self._process = subprocess.Popen(  # noqa: S603
                SERVE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            self._asks = os.getpid()
            _read_line(self._process)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._asks != os.getpid():
            return
        process.kill()
        process.communicate()


def _exchange(process: "subprocess.Popen[str]", question: str) -> Any:
    asked = cast(IO[str], process.stdin)
    with contextlib.suppress(BrokenPipeError):  # why it has ended is told below
        asked.write(question + "\n")
        asked.flush()
    return json.loads(_read_line(process))


def _read_line(process: "subprocess.Popen[str]") -> str:
    if line := cast(IO[str], process.stdout).readline():
        return line
    code = process.wait()
    if code == -signal.SIGPROF:
        raise TooHard
    raise BadScorer(f"scorer 'math': the process that reads LaTeX has ended, with {code}")


_mathematician = Mathematician()
atexit.register(_mathematician.close)


@lru_cache(maxsize=4096)
def _is_readable(right: str) -> bool:
    try:
        return bool(_mathematician.ask("is_readable", right))
    except TooHard:
        return False


def equal(answer: str, right: str) -> float:
    """The answer's last box, or else its last expression, equals the right one.

    One that takes too much to be compared does not.

    Raises:
        ValueError: if the right one cannot be read.
        BadScorer: if the process that reads it cannot be had, or was ended by others.
    """
    if not _is_readable(right):
        raise ValueError(f"scorer 'math': the right answer {right!r} cannot be read")
    try:
        return float(_mathematician.ask("is_equal", answer, right))
    except TooHard:
        return 0.0


def expression_said(answer: str) -> str | None:
    """The same, in SymPy's own writing; nothing if that takes too much."""
    try:
        said: str | None = _mathematician.ask("in_sympy", answer)
    except TooHard:
        return None
    return said


MATH = Scorer(equal, expression_said)
