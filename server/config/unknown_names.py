"""Unknown settings and environment variables, refused with the nearest name that is known."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

PREFIX = "PROCTOR_"
SEPARATOR = "__"

OTHER_VARIABLES = ("PROCTOR_API_KEY", "PROCTOR_CONFIG", "PROCTOR_KEY")
"""Variables that are no settings: the key of `proctor launch`, the path of the settings file, and
the key in the code that the page shows."""

OF_SERVICES = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP)(_\w+)?)?$")
"""Variables that Kubernetes and Docker set for each service whose name begins with "proctor"."""


def describe_unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message about an unknown name, with the nearest known one if there is any."""
    nearest = get_close_matches(name, [*known], n=1)
    hint = f": did you mean '{nearest[0]}'?" if nearest else ""
    return f"Unknown {kind} '{name[:64]}'{hint}"


def names_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the names of the settings of the table at a location, such as `("tiers", 0)`."""
    models = [model]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [each.model_fields[part] for each in models if part in each.model_fields]
        models = [inner for field in fields for inner in _models(field.annotation)]
    return [name for each in models for name in each.model_fields]


def unknown_variables(model: type[BaseModel], environment: Mapping[str, str]) -> list[str]:
    """Return a message for each environment variable that looks like a setting, but is none."""
    known = [PREFIX + name.upper() for name in model.model_fields]
    messages = []
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or OF_SERVICES.search(name):
            continue
        table = name.partition(SEPARATOR)[0] if SEPARATOR in name[len(PREFIX) :] else name
        if table not in known:
            candidates = [*known, *OTHER_VARIABLES]
            messages.append(describe_unknown("environment variable", name, candidates))
    return messages


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models within an annotation, such as `tuple[Tier, ...]` or `Prices | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models(inner)
