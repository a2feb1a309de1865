"""`proctor router …`: train, evaluate and calibrate. Also `python -m proctor.router.cli`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from proctor.router.calibration import Row, propose, propose_costs
from proctor.router.calibration_io import LedgerError, read_rows, snippet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands to a parser of their own."""
    commands = parser.add_subparsers(dest="router_command", required=True)
    train = commands.add_parser("train", help="train the classifier on labelled prompts")
    train.add_argument("file", type=Path, help="labelled prompts, one JSON object to a line")
    train.add_argument("--out", type=Path, default=Path("ensemble.npz"), help="the model to write")
    evaluate = commands.add_parser("evaluate", help="cross-validate on labelled prompts; minutes")
    evaluate.add_argument("file", type=Path, help="labelled prompts, one JSON object to a line")
    calibrate = commands.add_parser("calibrate", help="propose caps and costs from what was used")
    calibrate.add_argument(
        "--ledger", required=True, help="rows, as JSON lines; under 'proctor' also a ledger's URL"
    )
    calibrate.add_argument(
        "--quantile", type=float, default=0.9, help="share that is to end by itself (default: 0.9)"
    )


def run(options: argparse.Namespace, read: Callable[[str], Sequence[Row]] | None = None) -> int:
    """Run the command that was chosen; the exit status.

    Args:
        options: what `add_arguments` made of the command line.
        read: takes what `--ledger` names to its rows; None reads a file.
    """
    rows_of = read or (lambda name: read_rows(Path(name)))
    try:
        match options.router_command:
            case "train":
                _train(options.file, options.out)
            case "evaluate":
                _evaluate(options.file)
            case _:
                proposals = propose(rows_of(options.ledger), options.quantile)
                print(snippet(proposals, propose_costs(proposals)), end="")
    except (LedgerError, ValueError, ModuleNotFoundError) as error:
        print(f"proctor: {_reason(error)}", file=sys.stderr)
        return 2
    return 0


def _train(file: Path, out: Path) -> None:
    # Serving needs no scikit-learn, so nothing imports it until somebody trains.
    from proctor.router.train import train

    train(file, out)
    print(f"wrote {out} ({out.stat().st_size} bytes)")


def _evaluate(file: Path) -> None:
    from proctor.router.train import cross_validate

    print(cross_validate(file))


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; training needs the extra: pip install 'proctor[router]'"
    return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program of its own; the exit status."""
    parser = argparse.ArgumentParser(prog="proctor router", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
