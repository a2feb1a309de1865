"""`proctor router …`: train, evaluate and calibrate. Also `python -m proctor.router.cli`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from proctor.router.calibration import Row, propose, propose_costs
from proctor.router.calibration_io import LedgerError, read_rows, snippet

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_arguments(parser: argparse.ArgumentParser) -> Commands:
    """Add the subcommands to `parser`, and return what further ones can be added to."""
    commands = parser.add_subparsers(dest="router_command", required=True)
    train = commands.add_parser("train", help="train the classifier on labelled prompts")
    train.add_argument("file", type=Path, help="labelled prompts, one JSON object per line")
    train.add_argument(
        "--out", type=Path, default=Path("ensemble.npz"), help="output file (default: ensemble.npz)"
    )
    evaluate = commands.add_parser(
        "evaluate", help="cross-validate on labelled prompts (takes minutes)"
    )
    evaluate.add_argument("file", type=Path, help="labelled prompts, one JSON object per line")
    calibrate = commands.add_parser(
        "calibrate", help="propose tier caps and router costs from recorded usage"
    )
    calibrate.add_argument(
        "--ledger",
        required=True,
        help="file of rows in JSON Lines format; 'proctor router' also accepts a ledger URL",
    )
    calibrate.add_argument(
        "--quantile",
        type=float,
        default=0.9,
        help="fraction of thinking blocks that end naturally under the cap (default: 0.9)",
    )
    return commands


def run(options: argparse.Namespace, read: Callable[[str], Sequence[Row]] | None = None) -> int:
    """Run the selected subcommand and return the exit status.

    Args:
        options: the command line, parsed with the arguments of `add_arguments`.
        read: reads the rows that `--ledger` names; None reads a file.
    """
    read_ledger = read or (lambda name: read_rows(Path(name)))
    try:
        match options.router_command:
            case "train":
                _train(options.file, options.out)
            case "evaluate":
                _evaluate(options.file)
            case _:
                proposals = propose(read_ledger(options.ledger), options.quantile)
                print(snippet(proposals, propose_costs(proposals)), end="")
    except (LedgerError, ValueError, ModuleNotFoundError) as error:
        print(f"proctor: {_reason(error)}", file=sys.stderr)
        return 2
    return 0


def _train(file: Path, out: Path) -> None:
    # Imported here because serving must not require scikit-learn.
    from proctor.router.train import train

    train(file, out)
    print(f"wrote {out} ({out.stat().st_size} bytes)")


def _evaluate(file: Path) -> None:
    from proctor.router.train import cross_validate

    print(cross_validate(file))


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error}. Training needs the extra 'router': pip install 'proctor[router]'"
    return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands as a standalone program and return the exit status."""
    parser = argparse.ArgumentParser(prog="proctor router", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
