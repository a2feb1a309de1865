"""Clusters of questions against scikit-learn's, and samplers against weights of all rows.

    .venv/bin/python -m bench.samplers

CPU time, all threads together. Questions are random words, some of them from a subject;
*agreement* is the adjusted Rand index with the subjects, 1 at best.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score

from proctor.curation.diversity.clusters import Clusters
from proctor.curation.diversity.s1 import S1NotebookOptions, S1PaperOptions
from proctor.curation.options import Context
from proctor.curation.selection import Candidate, SelectorOptions
from proctor.curation.tokens import Words
from tests.curation.diversity.reference import sample

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SUBJECTS = 50
SUBJECT_SHARE = 0.3
LENGTH = 60
ROWS = 24_517
SIZE = 1000


def make_questions(count: int, rng: Random) -> tuple[list[str], list[int]]:
    """Return questions, and their subjects."""

    def words(number: int) -> list[str]:
        return ["".join(rng.choices(LETTERS, k=6)) for _ in range(number)]

    common, special = words(2000), [words(60) for _ in range(SUBJECTS)]
    subjects = [rng.randrange(SUBJECTS) for _ in range(count)]
    questions = [
        " ".join(
            rng.choice(special[subject] if rng.random() < SUBJECT_SHARE else common)
            for _ in range(LENGTH)
        )
        for subject in subjects
    ]
    return questions, subjects


def peer_clusters(questions: Sequence[str]) -> list[int]:
    """Cluster as scikit-learn does, with as many words and one start."""
    vectorizer = TfidfVectorizer(max_features=4096, min_df=2, max_df=0.5, sublinear_tf=True)
    vectors = vectorizer.fit_transform(questions)
    groups = KMeans(SUBJECTS, n_init=1, random_state=0, max_iter=30).fit_predict(vectors)
    return [int(group) for group in groups]


def make_candidates(rng: Random) -> list[Candidate]:
    """Return as many rows as s1's notebook chooses from, in 51 domains."""
    return [
        Candidate(f"{at:05}", "", f"domain {rng.randrange(51)}", "", rng.randrange(12_000))
        for at in range(ROWS)
    ]


def cpu_seconds(run: Callable[[], object], rounds: int) -> float:
    """Return the median CPU time of a call."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return statistics.median(times)


def select(options: SelectorOptions, candidates: Sequence[Candidate]) -> list[str]:
    """Choose rows by one of our samplers."""
    return options.build(Context(Path(), Words(), 0)).select(candidates, Random(0))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = Random(0)

    questions, subjects = make_questions(options.questions, rng)
    print(f"| {len(questions):,} questions, {SUBJECTS} clusters | CPU s | agreement |")
    print("|---|--:|--:|")
    for name, cluster in (
        ("ours", lambda: Clusters(SUBJECTS, 0).classify(questions)),
        ("scikit-learn", lambda: peer_clusters(questions)),
    ):
        agreement = adjusted_rand_score(subjects, cluster())
        print(f"| {name} | {cpu_seconds(cluster, options.rounds):.2f} | {agreement:.2f} |")

    candidates = make_candidates(rng)
    mix = {f"domain {at}": 1 for at in range(4)}
    print(f"\n| {SIZE:,} of {ROWS:,} rows | CPU s |\n|---|--:|")
    for name, choose in (
        ("s1-paper", lambda: select(S1PaperOptions(), candidates)),
        ("s1-notebook", lambda: select(S1NotebookOptions(mix=mix), candidates)),
        ("all weights", lambda: sample(candidates, (), SIZE, Random(0), SIZE, {}, False)),
    ):
        print(f"| {name} | {cpu_seconds(choose, options.rounds):.2f} |")


if __name__ == "__main__":
    main()
