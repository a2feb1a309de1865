"""The names of tools, and those of the functions that the model sees in their place."""

from typing import NamedTuple

INPUT = "input"
"""The parameter of the functions that custom tools become."""

SHELL = "local_shell"
"""The name under which the model sees earlier calls of OpenAI's local shell tool."""

SEPARATOR = "__"


def flat_name(name: str, namespace: str | None) -> str:
    """Return the name of the function that a tool becomes."""
    return name if namespace is None else f"{namespace}{SEPARATOR}{name}"


class ToolOrigin(NamedTuple):
    """The tool that a function was made of.

    Attributes:
        path: the path of the tool in the request.
        name: its name.
        namespace: the name of its namespace, or None.
        is_custom: whether its input is text.
    """

    path: str
    name: str
    namespace: str | None
    is_custom: bool

    def is_named_by(self, kind: str, name: str | None, namespace: str | None) -> bool:
        """Return whether `tool_choice` names the tool, by the type and the names that it has."""
        if kind == "namespace":
            return self.namespace is not None and self.namespace == name
        own = "custom" if self.is_custom else "function"
        return (kind, name, namespace) == (own, self.name, self.namespace)
