"""`proctor audit`: check whether a file of training rows teaches a model to think under budgets."""

import argparse
import sys
from pathlib import Path

from proctor.curation.audit.measure import audit
from proctor.curation.audit.report import sections
from proctor.curation.errors import CurationError
from proctor.curation.model import Model
from proctor.curation.readers.files import read_records
from proctor.curation.run.report import print_report, write_report
from proctor.curation.stages.decontamination import read_index
from proctor.curation.tokens import Words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `proctor audit` to its parser."""
    parser.add_argument("file", type=Path, help="JSON lines, Parquet, Arrow, or a folder of them")
    parser.add_argument("--model", help="folder or Hugging Face name of the model to be trained")
    parser.add_argument("--thinking-start", help="text of the marker that starts the thinking")
    parser.add_argument("--thinking-end", help="text of the marker that ends the thinking")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of evaluations, whose questions must not be in the file",
    )
    parser.add_argument("--folder", type=Path, help="folder for the report as Markdown and HTML")


def execute(options: argparse.Namespace) -> int:
    """Audit the file and return the exit status."""
    try:
        _audit(options)
    except KeyboardInterrupt:
        return 130
    except (CurationError, OSError) as error:
        print(f"proctor: {error}", file=sys.stderr)
        return 1
    return 0


def _audit(options: argparse.Namespace) -> None:
    start, end = options.thinking_start, options.thinking_end
    if bool(start) != bool(end):
        raise CurationError("--thinking-start and --thinking-end must be given together")
    model = Model.load(options.model, start, end) if options.model else None
    markers = model.markers if model else (start, end) if start else None
    index = read_index(options.against, Path()) if options.against else None
    measured = audit(read_records(options.file), model or Words(), index)
    if not measured.rows and not measured.unreadable:
        raise CurationError(f"{options.file} has no rows")
    known = model is not None or markers is not None
    report = sections(measured, markers, model=known, against=index is not None)
    title = f"Audit of {options.file.name}"
    print_report(title, report)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        write_report(title, report, options.folder)
