"""Imports what an engine's processes need, in the process from which they are forked."""

import gc

from proctor.server.engines.grammars import forkers as forkers
from proctor.server.engines.vllm import core_process as core_process

# A garbage collection in a forked process would copy all memory that it shares with this one.
gc.collect()
gc.freeze()
