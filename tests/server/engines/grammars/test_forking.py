"""The fork server, with children that need no engine."""

import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context

import pytest

from proctor.server.engines.grammars.bounds import STACK_BYTES, apply_limits
from proctor.server.engines.grammars.forking import FORK, ForkServer, shut_down_and_close
from proctor.server.engines.grammars.frames import CheckRequest, CheckResult, receive, send

pytestmark = pytest.mark.slow

PATIENCE = 120


def child(connection: socket.socket) -> None:
    task = receive(connection, CheckRequest)
    if task.kind == "echo":
        send(connection, CheckResult(backend=task.value))
    elif task.kind == "die":
        os.kill(os.getpid(), task.value)
    elif task.kind == "stack":
        apply_limits(task)
        send(connection, CheckResult(backend=str(resource.getrlimit(resource.RLIMIT_STACK)[0])))
    elif task.kind == "hold":
        apply_limits(task)
        try:
            bytearray(task.value * 2**20)
        except MemoryError:
            send(connection, CheckResult(exceeded="memory"))
    else:
        apply_limits(task)
        connection.sendall(b"!")
        while True:
            pass


def serve(control: socket.socket, others: socket.socket) -> None:
    others.close()
    ForkServer(control, child).run()


Begin = Callable[[CheckRequest], socket.socket]


@pytest.fixture(scope="module")
def begin() -> Iterator[Begin]:
    ours, theirs = socket.socketpair()
    process = get_context("spawn").Process(target=serve, args=(theirs, ours))
    process.start()
    theirs.close()

    def begin(task: CheckRequest) -> socket.socket:
        mine, its = socket.socketpair()
        mine.settimeout(PATIENCE)
        with its:
            socket.send_fds(ours, [FORK], [its.fileno()])
        send(mine, task)
        return mine

    try:
        yield begin
    finally:
        shut_down_and_close(ours)
        process.join(PATIENCE)
        assert process.exitcode == 0


def task(
    kind: str, value: object = None, seconds: float = 60, memory_mib: int = 64
) -> CheckRequest:
    return CheckRequest(kind, value, seconds, memory_mib, nice=0)


def test_a_child_answers(begin: Begin) -> None:
    with begin(task("echo", "a")) as one, begin(task("echo", "b")) as other:
        assert receive(other, CheckResult).backend == "b"
        assert receive(one, CheckResult).backend == "a"


def test_a_child_that_computes_too_long_is_ended(begin: Begin) -> None:
    with begin(task("spin", seconds=0.05)) as spinning:
        assert spinning.recv(1) == b"!"
        assert receive(spinning, CheckResult) == CheckResult(exceeded="time")


def test_a_child_that_exceeds_its_memory_is_reported(begin: Begin) -> None:
    with begin(task("hold", 256, memory_mib=64)) as holding:
        assert receive(holding, CheckResult) == CheckResult(exceeded="memory")


def test_the_stack_of_a_child_is_smaller_than_the_engines(begin: Begin) -> None:
    with begin(task("stack")) as child:
        assert receive(child, CheckResult).backend == str(STACK_BYTES)
    default, _ = resource.getrlimit(resource.RLIMIT_STACK)
    assert default == resource.RLIM_INFINITY or default >= 2 * STACK_BYTES


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (signal.SIGKILL, CheckResult(exceeded="memory")),
        (signal.SIGABRT, CheckResult(exceeded="memory")),
        (signal.SIGSEGV, CheckResult(refused="it cannot be compiled to a grammar")),
    ],
)
def test_the_death_of_a_child_is_reported(
    begin: Begin, number: signal.Signals, answer: CheckResult
) -> None:
    with begin(task("die", int(number))) as dying:
        assert receive(dying, CheckResult) == answer


def test_a_child_whose_connection_closes_is_ended(begin: Begin) -> None:
    spinning = begin(task("spin"))
    spinning.recv(1)
    forked_meanwhile = begin(task("spin"))
    forked_meanwhile.recv(1)
    shut_down_and_close(spinning)

    # The other children keep running, and new ones can be forked.
    with begin(task("echo", "still here")) as connection:
        assert receive(connection, CheckResult).backend == "still here"
    shut_down_and_close(forked_meanwhile)


def test_all_children_end_with_the_fork_server() -> None:
    ours, theirs = socket.socketpair()
    process = get_context("spawn").Process(target=serve, args=(theirs, ours))
    process.start()
    theirs.close()
    mine, its = socket.socketpair()
    mine.settimeout(PATIENCE)
    with its:
        socket.send_fds(ours, [FORK], [its.fileno()])
    send(mine, task("spin"))
    mine.recv(1)

    threading.Thread(target=shut_down_and_close, args=(ours,)).start()

    with mine:
        assert mine.recv(1) == b""  # the last process that held the other end has exited
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_the_time_limit_of_a_child_outlives_the_fork_server() -> None:
    ours, theirs = socket.socketpair()
    process = get_context("spawn").Process(target=serve, args=(theirs, ours))
    process.start()
    theirs.close()
    mine, its = socket.socketpair()
    mine.settimeout(PATIENCE)
    with its:
        socket.send_fds(ours, [FORK], [its.fileno()])
    send(mine, task("spin", seconds=0.5))

    with mine, ours:
        assert mine.recv(1) == b"!"
        process.kill()
        process.join(PATIENCE)
        assert mine.recv(1) == b""  # the child has ended: no other process holds the other end
