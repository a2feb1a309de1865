"""Decodes the input of a custom tool from the arguments of its function, as they are generated."""

import json
import re

from pydantic_core import from_json

from proctor.server.schemas.openai_responses.tool_names import INPUT

BEGINNING = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
MAX_BEGINNING = 64
CHARACTERS = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)
"""Characters of a JSON string, each complete."""

END = re.compile(r'"\s*\}\s*$')


class CustomInput:
    """The input of one call, whose arguments are a JSON object with a string."""

    def __init__(self) -> None:
        self._arguments: list[str] = []
        self._texts: list[str] = []
        self._pending = ""
        self._has_begun: bool | None = None

    @property
    def text(self) -> str:
        """The input so far."""
        return "".join(self._texts)

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        return "".join(self._arguments)

    def push(self, arguments: str) -> str:
        """Add arguments, and return the text that is certain now."""
        self._arguments.append(arguments)
        if self._has_begun is False:
            return ""
        self._pending += arguments
        if self._has_begun is None:
            found = BEGINNING.match(self._pending)
            if found is None:
                self._has_begun = False if len(self._pending) > MAX_BEGINNING else None
                return ""
            self._has_begun, self._pending = True, self._pending[found.end() :]
        found = CHARACTERS.match(self._pending)
        end = 0 if found is None else found.end()
        complete, self._pending = self._pending[:end], self._pending[end:]
        return self._add(json.loads(f'"{complete}"', strict=False))

    def close(self) -> str:
        """Return the rest of the text. Arguments without an input are themselves the input."""
        if self._has_begun:
            # Invalid escapes are left as they are.
            return self._add("" if self._pending[:1] == '"' else END.sub("", self._pending))
        try:
            value = from_json(self.arguments)
        except ValueError:
            value = None
        given = value.get(INPUT) if isinstance(value, dict) else None
        return self._add(given if isinstance(given, str) else self.arguments)

    def _add(self, text: str) -> str:
        self._texts.append(text)
        return text


def is_complete(arguments: str) -> bool:
    """Return whether the arguments of a call are complete JSON."""
    try:
        from_json(arguments)
    except ValueError:
        return False
    return True
