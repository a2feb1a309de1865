"""Everything here needs the engine."""

import pytest

from tests.engine.served import NO_ENGINE

pytest.importorskip("vllm", reason=NO_ENGINE)
