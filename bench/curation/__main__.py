"""Write the pool that the curation is proved on, and measure the filters on its dirt.

    .venv/bin/python -m bench.curation pool --out pool
    .venv/bin/python -m bench.curation filters pool

The pool is 20,000 questions of ten kinds with traces, written by program, among which dirty rows
are planted (`dirt.py`) whose ids are in a file of labels. `seen.jsonl` and `unseen.jsonl` have
held-out questions of the same kinds and of two others.
"""

import argparse
from pathlib import Path

from bench.curation.dirt import CONTAMINATION, COPIES, SPOILS
from bench.curation.files import write_pool
from bench.curation.filters import mistakes, run_filters, table

COUNT, DIRTY, SEED = 20_000, 300, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    pool = commands.add_parser("pool", help="write the pool")
    pool.add_argument("--out", type=Path, default=Path("pool"), help="folder")
    pool.add_argument("--count", type=int, default=COUNT, help="clean rows")
    pool.add_argument("--dirty", type=int, default=DIRTY, help="dirty rows of each kind of dirt")
    pool.add_argument("--seed", type=int, default=SEED)
    filters = commands.add_parser("filters", help="measure the filters on the planted dirt")
    filters.add_argument("folder", type=Path, help="folder of the pool")
    filters.add_argument(
        "--show", metavar="DIRT", choices=[*COPIES, *SPOILS, CONTAMINATION, "clean"],
        help="also list rows of this kind of dirt that are kept, or clean ones that are dropped",
    )  # fmt: skip
    options = parser.parse_args()
    if options.command == "pool":
        spoilt = options.dirty * len(SPOILS)
        print(write_pool(options.out, options.count + spoilt, options.dirty, options.seed))
        return
    rows, labels, findings = run_filters(options.folder)
    print(*table(rows, labels, findings), sep="\n")
    if options.show:
        print(*mistakes(options.show, rows, labels, findings), sep="\n")


if __name__ == "__main__":
    main()
