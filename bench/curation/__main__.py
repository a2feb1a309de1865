"""Write the pool that the curation is proved on, and measure the filters on its dirt.

    .venv/bin/python -m bench.curation pool --out pool
    .venv/bin/python -m bench.curation filters pool
    .venv/bin/python -m bench.curation ablation pool --model .venv/real-model/model

The pool is 20,000 questions of ten kinds with traces, written by program, among which dirty rows
are planted (`dirt.py`) whose ids are in a file of labels. `seen.jsonl` and `unseen.jsonl` have
held-out questions of the same kinds and of two others.

The ablation trains a model on 1,000 rows that all filters and s1's sampler choose, on 1,000 at
random and on the 1,000 longest, the same number of steps each, serves each and asks it the held-out
questions. It takes hours; stopped, it goes on where it was.
"""

import argparse
from pathlib import Path

from bench.curation.ablation import ARMS, FIRST_ARMS, Setup, report, run_arms
from bench.curation.dirt import CONTAMINATION, COPIES, SPOILS
from bench.curation.files import write_pool
from bench.curation.filters import mistakes, run_filters, table

COUNT, DIRTY, SEED = 20_000, 300, 20
STEPS = 125
"""Two passes over 1,000 examples."""


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
    trained = commands.add_parser("ablation", help="train on differently chosen rows, and compare")
    trained.add_argument("folder", type=Path, help="folder of the pool, and of the results")
    trained.add_argument("--model", type=Path, required=True, help="folder of the base model")
    trained.add_argument("--arms", nargs="+", choices=ARMS, default=FIRST_ARMS)
    trained.add_argument("--steps", type=int, default=STEPS, help="training steps of 16 examples")
    trained.add_argument("--report", action="store_true", help="only print the tables")
    options = parser.parse_args()
    if options.command == "pool":
        spoilt = options.dirty * len(SPOILS)
        print(write_pool(options.out, options.count + spoilt, options.dirty, options.seed))
        return
    if options.command == "ablation":
        setup = Setup(options.folder.resolve(), options.model.resolve(), options.steps)
        if not options.report:
            run_arms(setup, options.arms)
        print(*report(setup, options.arms), sep="\n")
        return
    rows, labels, findings = run_filters(options.folder)
    print(*table(rows, labels, findings), sep="\n")
    if options.show:
        print(*mistakes(options.show, rows, labels, findings), sep="\n")


if __name__ == "__main__":
    main()
