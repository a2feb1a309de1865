"""The defaults of arguments, in the help of every command."""

import argparse

NO_DEFAULTS = (None, False, argparse.SUPPRESS)


def add_defaults(parser: argparse.ArgumentParser) -> None:
    """Add its default to the help of each argument that takes a value and does not name it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                add_defaults(each)
        elif _has_default(action) and "default" not in (action.help or ""):
            action.help = f"{action.help or ''} (default: {_shown(action.default)})".lstrip()


def _has_default(action: argparse.Action) -> bool:
    takes_a_value = action.nargs != 0
    if not action.option_strings:
        return takes_a_value and action.default not in NO_DEFAULTS
    return takes_a_value and not action.required


def _shown(default: object) -> str:
    if default is None or default == []:
        return "none"
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return str(default).replace("%", "%%")
