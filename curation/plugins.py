"""Parts of a recipe by name: the built-in ones, and those that other packages install."""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from proctor.curation.errors import CurationError
from proctor.curation.options import Options

T = TypeVar("T", bound=Options)


class Plugins(Mapping[str, type[T]]):
    """Options of parts by name; those of other packages are imported when they are looked up."""

    def __init__(self, group: str, base: type[T], built_in: Mapping[str, type[T]]) -> None:
        """Find the installed parts.

        Args:
            group: the group of entry points; each is a subclass of `base`.
            base: the class of all options.
            built_in: the parts that come with Proctor; others cannot replace them.
        """
        self._base = base
        self._built_in = built_in
        self._installed: Mapping[str, EntryPoint] = {
            point.name: point for point in entry_points(group=group) if point.name not in built_in
        }

    def __getitem__(self, name: str) -> type[T]:
        if name in self._built_in:
            return self._built_in[name]
        point = self._installed[name]
        try:
            loaded = point.load()
        except (ImportError, AttributeError) as error:
            raise CurationError(f"'{name}' ({point.value}) cannot be imported: {error}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, self._base)):
            raise CurationError(
                f"'{name}' ({point.value}) is not a subclass of {self._base.__name__}"
            )
        return loaded

    def __iter__(self) -> Iterator[str]:
        yield from (*self._built_in, *self._installed)

    def __len__(self) -> int:
        return len(self._built_in) + len(self._installed)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._installed
