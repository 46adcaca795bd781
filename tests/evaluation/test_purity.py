"""Purity and mutual information of groups whose right answers are known."""

import numpy as np
import pytest

from prior_fast.evaluation.bank_purity import EVERY, NAMING, bank_purity, k_means, prototype_rows
from prior_fast.evaluation.purity import effective_groups, numbers_of, purity, shared_information, shuffled
from prior_fast.evaluation.read_sentences import ReadSentences
from prior_fast.evaluation.statements import read_statement

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2])


def read(sentences: list[str], prototypes: list[int], embedded: np.ndarray | None = None) -> ReadSentences:
    rows = np.eye(len(sentences), dtype=np.float32) if embedded is None else embedded
    return ReadSentences(sentences, [read_statement(text) for text in sentences], rows, np.array(prototypes), 9)


def test_perfect_groups() -> None:
    renamed = np.array([7, 7, 7, 3, 3, 3, 5, 5])
    assert purity(LABELS, renamed) == 1
    assert shared_information(LABELS, renamed) == pytest.approx(1)


def test_one_group_tells_nothing() -> None:
    assert purity(LABELS, np.zeros(8, int)) == pytest.approx(3 / 8)
    assert shared_information(LABELS, np.zeros(8, int)) == 0


def test_a_group_of_two_labels_counts_its_majority() -> None:
    assert purity(LABELS, np.array([0, 0, 0, 0, 1, 1, 1, 1])) == pytest.approx((3 + 2) / 8)


def test_mutual_information_of_independent_halves_and_of_one_label() -> None:
    assert shared_information(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == pytest.approx(0)
    # I = ln 2, H(labels) = ln 2, H(groups) = ln 4: 2 I / (H + H) = 2 / 3.
    assert shared_information(np.array([0, 0, 1, 1]), np.arange(4)) == pytest.approx(2 / 3)
    assert shared_information(np.zeros(4, int), np.arange(4)) is None


def test_groups_of_one_are_pure_by_chance_too() -> None:
    assert purity(LABELS, np.arange(8)) == 1
    assert all(purity(order, np.arange(8)) == 1 for order in shuffled(LABELS, 0))


def test_shuffled_labels_are_the_same_labels() -> None:
    orders = shuffled(LABELS, 0)
    assert all(sorted(order) == sorted(LABELS) for order in orders)
    assert any((order != LABELS).any() for order in orders)
    assert all((a == b).all() for a, b in zip(orders, shuffled(LABELS, 0)))


def test_effective_groups() -> None:
    assert effective_groups(np.array([4, 4, 9, 9])) == pytest.approx(2)
    assert effective_groups(np.array([4, 4, 4])) == pytest.approx(1)


def test_equal_values_have_equal_numbers() -> None:
    assert numbers_of(["b", "a", "b", ("a",)]).tolist() == [0, 1, 0, 2]


def test_k_means_finds_directions_whatever_their_lengths(rng: np.random.Generator) -> None:
    directions = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    rows = (directions + rng.normal(0, 0.01, (6, 3))) * np.array([1, 1, 1, 50, 50, 50])[:, None]
    found = k_means(rows.astype(np.float32), 3, seed=0)
    assert purity(found, np.array([0, 1, 2, 0, 1, 2])) == 1 and len(np.unique(found)) == 3
    # Not more clusters than different rows.
    assert len(np.unique(k_means(np.ones((4, 3), np.float32), 3, seed=0))) == 1


def test_a_bank_that_knows_the_finding_but_not_the_side() -> None:
    sentences = ["Left effusion.", "Right effusion.", "Left effusion.", "No edema.", "No edema.", "Bones are intact."]
    found = bank_purity(read(sentences, [4, 4, 4, 1, 1, 7]), seed=0)
    assert (found["sentences"], found["prototypes"], found["prototypes_used"]) == (6, 9, 3)
    assert found[EVERY]["purity"]["finding"]["value"] == 1
    assert found[EVERY]["purity"]["presence"]["value"] == 1
    assert found[EVERY]["purity"]["side"]["value"] == pytest.approx(5 / 6)
    assert found[EVERY]["purity"]["all three"]["value"] == pytest.approx(5 / 6)
    assert found[EVERY]["normalized_mutual_information"]["finding"]["value"] == pytest.approx(1)
    assert found[NAMING]["sentences"] == 5
    assert found[EVERY]["purity"]["finding"]["chance"] < 1


def test_the_baseline_has_the_clusters_of_the_embeddings() -> None:
    # The embeddings know the finding; the bank groups without regard to it.
    sentences = ["Effusion.", "Edema."] * 4
    embedded = np.eye(2, dtype=np.float32)[[0, 1] * 4]
    found = bank_purity(read(sentences, [0, 0, 1, 1, 0, 0, 1, 1], embedded), seed=0)[EVERY]["purity"]["finding"]
    assert found["k_means"] == 1 and found["value"] == 0.5


def test_one_sentence_and_no_finding() -> None:
    found = bank_purity(read(["Bones are intact."], [3]), seed=0)
    assert found[EVERY]["purity"]["finding"]["value"] == 1
    assert found[EVERY]["normalized_mutual_information"]["finding"]["value"] is None
    assert found[NAMING]["sentences"] == 0 and found[NAMING]["purity"]["finding"]["value"] is None


def test_the_table_of_prototypes() -> None:
    sentences = ["Left effusion.", "Left effusion.", "A left effusion.", "Right effusion.", "No edema."]
    first, second = prototype_rows(read(sentences, [4, 4, 4, 4, 1]))
    assert (first["prototype"], first["sentences"], first["purity"]) == (4, 4, 0.75)
    assert (first["finding"], first["side"], first["presence"]) == ("Pleural Effusion", "left", "stated")
    assert first["typical"] == ["Left effusion.", "A left effusion.", "Right effusion."]
    assert (second["prototype"], second["finding"], second["presence"]) == (1, "Edema", "denied")
