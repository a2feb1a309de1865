"""The scorer `math`: compares answers in LaTeX, boxed or not, with math-verify.

1/2 equals 0.5, and (1, 2) is a pair. Answers are parsed and compared in a separate process
(`proctor.evaluation.math_process`), which limits the CPU time and memory that a model's answer can
take, and makes scores independent of wall-clock time. Requires the extra `eval`.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import IO, Any, cast

from proctor.evaluation.scorers import Scorer, ScorerError

if find_spec("math_verify") is None:
    raise ImportError("math_verify is not installed")

SERVE = (sys.executable, "-c", "from proctor.evaluation.math_process import serve; serve()")


class LimitExceeded(Exception):
    """A request exceeded the limit on CPU time of `proctor.evaluation.math_process`."""


class MathProcess:
    """The process that compares answers: started on the first request, restarted once ended."""

    def __init__(self, command: Sequence[str] = SERVE) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner_pid = 0

    def call(self, function: str, *texts: str) -> Any:
        """Call one of `proctor.evaluation.math_process.FUNCTIONS`; thread-safe.

        Raises:
            LimitExceeded: if the call exceeds the limit on CPU time.
            ScorerError: if the process cannot be started, or ended for another reason.
        """
        with self._lock:
            try:
                return _exchange(self._started(), json.dumps([function, *texts]))
            except BaseException:
                self._end()  # otherwise the next call would read the response to this one
                raise

    def close(self) -> None:
        """End the process, if it runs."""
        with self._lock:
            self._end()

    def _started(self) -> "subprocess.Popen[str]":
        # After a fork, parent and child must not share one process.
        if self._process is None or self._owner_pid != os.getpid():
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            self._owner_pid = os.getpid()
            _read_line(self._process)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner_pid != os.getpid():
            return
        process.kill()
        process.communicate()


def _exchange(process: "subprocess.Popen[str]", request: str) -> Any:
    stdin = cast(IO[str], process.stdin)
    with contextlib.suppress(BrokenPipeError):  # _read_line raises the reason
        stdin.write(request + "\n")
        stdin.flush()
    return json.loads(_read_line(process))


def _read_line(process: "subprocess.Popen[str]") -> str:
    if line := cast(IO[str], process.stdout).readline():
        return line
    code = process.wait()
    if code == -signal.SIGPROF:
        raise LimitExceeded
    raise ScorerError(f"scorer 'math': the process that parses LaTeX has ended, with {code}")


_math_process = MathProcess()
atexit.register(_math_process.close)


@lru_cache(maxsize=4096)
def _is_readable(right: str) -> bool:
    try:
        return bool(_math_process.call("is_readable", right))
    except LimitExceeded:
        return False


def equal(answer: str, right: str) -> float:
    """Return 1 if the answer's last box, or else its last expression, equals the right answer.

    An answer whose comparison exceeds the limit on CPU time scores 0.

    Raises:
        ValueError: if the right answer cannot be parsed.
        ScorerError: if the comparing process cannot be started, or ended for another reason.
    """
    if not _is_readable(right):
        raise ValueError(f"scorer 'math': the right answer {right!r} cannot be read")
    try:
        return float(_math_process.call("is_equal", answer, right))
    except LimitExceeded:
        return 0.0


def last_expression(answer: str) -> str | None:
    """Return the answer's last box, or else its last expression, as SymPy prints it.

    Return None if there is neither, or if that exceeds the limit on CPU time.
    """
    try:
        expression: str | None = _math_process.call("to_sympy", answer)
    except LimitExceeded:
        return None
    return expression


MATH = Scorer(equal, last_expression)
