"""Processes are forked from one that has imported a module, and that ends with its parent."""

import subprocess
import sys

import psutil
import pytest

from tests.server.engines.processes import forking_parent
from tests.waiting import PATIENCE


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_a_forked_process_has_the_module_and_one_thread(how: str) -> None:
    with psutil.Popen(
        [sys.executable, "-m", forking_parent.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        # Whether it has the module, its number of threads, and whether it ignores Ctrl-C.
        assert parent.stdout.readline() == "True 1 True\n"
        children = parent.children(recursive=True)
        assert any("forkserver" in " ".join(child.cmdline()) for child in children)
        if how == "is killed":
            parent.kill()
        parent.communicate()

    _, alive = psutil.wait_procs(children, PATIENCE)
    assert not alive
