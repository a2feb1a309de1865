"""Settings that every test shares."""

from hypothesis import settings

# A first call pays for imports and lazy set-up, so time per example says nothing.
settings.register_profile("proctor", deadline=None)
settings.load_profile("proctor")
