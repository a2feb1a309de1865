"""Settings that every test shares."""

import os

from hypothesis import settings

# A first call pays for imports and lazy set-up, so time per example says nothing.
settings.register_profile("proctor", deadline=None)
settings.load_profile("proctor")

# Or else commands would keep a ledger in this user's home.
os.environ["PROCTOR_LEDGER__URL"] = ""
