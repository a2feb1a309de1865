"""The tests of the embedded engine, over a replica: budgets, sampling, raw prompts, tools."""

import pytest

from tests.engine.test_budgets import *  # noqa: F403
from tests.engine.test_early_exit import *  # noqa: F403
from tests.engine.test_parallel import *  # noqa: F403
from tests.engine.test_prefix_cache import *  # noqa: F403
from tests.engine.test_raw_prompts import *  # noqa: F403
from tests.engine.test_s1_equivalence import *  # noqa: F403
from tests.engine.test_sampling import *  # noqa: F403
from tests.engine.test_structured_output import *  # noqa: F403
from tests.engine.test_tools import *  # noqa: F403
from tests.engine.test_vllm_fields import *  # noqa: F403

pytestmark = pytest.mark.engine
