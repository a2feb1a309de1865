"""Domains by keywords and by clusters."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from proctor.curation.diversity.clusters import Clusters, ClustersOptions
from proctor.curation.diversity.keywords import Keywords, KeywordsOptions, built_in_keywords
from proctor.curation.diversity.words import vectorize
from proctor.curation.options import Context
from proctor.curation.tokens import Words

CONTEXT = Context(Path(), Words(), 3)
TOPICS = {
    "kitchen": ["butter", "flour", "oven", "sugar", "recipe", "bake", "dough", "pan"],
    "harbor": ["ship", "anchor", "sail", "captain", "harbor", "cargo", "wind", "tide"],
    "court": ["judge", "lawyer", "trial", "verdict", "witness", "court", "appeal", "jury"],
}


def questions_of(topics: dict[str, list[str]], each: int) -> list[tuple[str, str]]:
    """Return pairs of a topic and a question of its words, with a number of its own."""
    rng = Random(0)
    return [
        (name, " ".join([*rng.choices(words, k=5), "what", str(number)]))
        for name, words in topics.items()
        for number in range(each)
    ]


def test_the_domain_with_most_keywords_is_chosen() -> None:
    chosen = Keywords({"law": ["court*", "legal"], "cooking": ["oven", "baking powder"]})
    questions = [
        "Courts and COURTS and an oven",
        "Baking\n powder?",
        "legally",
        "one oven, one court",
    ]
    assert chosen.classify(questions) == ["law", "cooking", "other", "law"]


def test_keywords_are_words_and_not_patterns() -> None:
    assert Keywords({"a": ["c.t"], "b": ["at"]}).classify(["cat", "c.t", "at"]) == [
        "other",
        "a",
        "b",
    ]


def test_the_built_in_keywords_name_usual_subjects() -> None:
    expected = {
        "Find all primes p such that p + 2 is prime.": "number theory",
        "In how many ways can 5 people be arranged in a row?": "combinatorics",
        "What is the area of a triangle with sides 3, 4 and 5?": "geometry",
        "Compute the eigenvalues of the matrix.": "linear algebra",
        "Evaluate the integral, or show that the series does not converge.": "calculus",
        "A patient has these symptoms. What is the diagnosis?": "medicine",
        "May the plaintiff sue the defendant in this court?": "law",
        "Tom buys 3 apples each day. How many apples does he have in all?": "arithmetic in words",
        "Which day of the week is 1 January 2031?": "time and calendars",
        "Xyzzy.": "other",
    }
    classifier = KeywordsOptions().build(CONTEXT)
    assert classifier.classify(expected) == [*expected.values()]
    assert "other" not in built_in_keywords()


@pytest.mark.parametrize(
    ("options", "fields"), [(KeywordsOptions, {"keywords": {}}), (ClustersOptions, {"clusters": 1})]
)
def test_useless_options_are_refused(
    options: type[KeywordsOptions | ClustersOptions], fields: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        options.model_validate(fields)


def test_clusters_find_topics_and_are_named_by_words() -> None:
    asked = questions_of(TOPICS, 40)
    domains = ClustersOptions(clusters=3).build(CONTEXT).classify(text for _, text in asked)

    by_topic = {
        name: {d for d, (topic, _) in zip(domains, asked, strict=True) if topic == name}
        for name in TOPICS
    }
    assert all(len(found) == 1 for found in by_topic.values())
    assert len(set().union(*by_topic.values())) == 3
    for name, (domain,) in by_topic.items():
        assert set(domain.split(", ")) <= set(TOPICS[name])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("abcd ", max_size=30), max_size=30), st.data())
def test_clusters_do_not_depend_on_the_order(texts: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    classifier = Clusters(4, seed=1)
    domains = classifier.classify(texts)

    assert classifier.classify(texts[at] for at in order) == [domains[at] for at in order]
    assert len(set(domains) - {"other"}) <= 4


def test_questions_of_rare_words_only_have_no_cluster() -> None:
    assert Clusters(3, 0).classify(["one two", "three four"]) == ["other", "other"]
    assert Clusters(3, 0).classify([]) == []


def test_fewer_different_questions_than_clusters() -> None:
    domains = Clusters(9, 0).classify(["red fish", "red fish here", "blue fish", "blue cow here"])
    assert 1 <= len(set(domains)) <= 4


@given(st.lists(st.lists(st.sampled_from(["ant", "bee", "cow", "dog"]), max_size=6), max_size=12))
def test_vectors_are_dense_tf_idf(texts: list[list[str]]) -> None:
    questions = [" ".join(words) for words in texts]
    vectors = vectorize(questions)
    dense = np.zeros((len(questions), len(vectors.words)))
    dense[vectors.rows, vectors.columns] = vectors.values

    expected = np.zeros_like(dense)
    for row, words in enumerate(texts):
        for column, word in enumerate(vectors.words):
            share = sum(word in other for other in texts) / len(texts)
            if word in words:
                expected[row, column] = (1 + np.log(words.count(word))) * (1 - np.log(share))
        norm = np.sqrt((expected[row] ** 2).sum())
        expected[row] /= norm or 1
    assert np.allclose(dense, expected)
    center = np.arange(len(vectors.words), dtype=float)
    assert np.allclose(vectors.similarity(center), dense @ center)
    groups = np.arange(len(questions)) % 2
    assert np.allclose(vectors.sums(groups, 2), [dense[groups == at].sum(axis=0) for at in (0, 1)])
