"""Python's garbage collector."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage while the body imports large libraries.

    What an import creates stays. The collector would traverse all of it again and again, which is a
    third of the time that it takes to import vLLM.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
