"""The kinds of questions of the pool, each in a file of its own."""

from collections.abc import Mapping

from bench.curation.kinds.arithmetic import arithmetic
from bench.curation.kinds.base import Kind
from bench.curation.kinds.calendars import calendars
from bench.curation.kinds.clocks import clocks
from bench.curation.kinds.geometry import geometry
from bench.curation.kinds.letters import letters
from bench.curation.kinds.logic import logic
from bench.curation.kinds.money import money
from bench.curation.kinds.ordering import ordering
from bench.curation.kinds.routes import routes
from bench.curation.kinds.sequences import sequences
from bench.curation.kinds.sets import sets
from bench.curation.kinds.units import units

TRAINED: Mapping[str, Kind] = {
    "arithmetic": arithmetic,
    "calendars": calendars,
    "geometry": geometry,
    "letters": letters,
    "logic": logic,
    "money": money,
    "ordering": ordering,
    "sequences": sequences,
    "sets": sets,
    "units": units,
}
UNSEEN: Mapping[str, Kind] = {"clocks": clocks, "routes": routes}
"""Kinds that no question of the pool has, for questions unlike those trained on."""

STEPS: Mapping[str, int] = dict.fromkeys([*TRAINED, *UNSEEN], 5) | {
    "calendars": 4,
    "geometry": 4,
    "money": 3,
    "ordering": 3,
    "units": 3,
}
"""The highest difficulty of each kind: more would make traces longer than about 160 tokens."""
