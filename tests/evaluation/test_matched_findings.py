"""The findings of sentences in the predictions that are matched to them, with right answers that are known."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from prior_fast.evaluation.encode import EmbeddedTexts
from prior_fast.evaluation.matched_findings import matched_findings
from prior_fast.evaluation.set_metrics import pairings

# Prototypes 0, 1 and 2 state finding a, finding b and both; 3 states none.
STATED = np.array([[True, False], [False, True], [True, True], [False, False]])


def reports(sentences: Tensor, lengths: list[int]) -> EmbeddedTexts:
    offsets = torch.tensor([0, *lengths]).cumsum(0).int()
    return EmbeddedTexts(sentences, sentences, torch.zeros(len(lengths), sentences.shape[1]), offsets, 0)


def test_shares_by_hand() -> None:
    texts = reports(torch.eye(4), [3, 1])
    # The first image's queries are sentences 2, 0, none, 1; the second's none, 3, none, none.
    predicted = torch.zeros(2, 4, 4)
    for image, query, sentence in ((0, 0, 2), (0, 1, 0), (0, 3, 1), (1, 1, 3)):
        predicted[image, query, sentence] = 1
    truth = np.array([[True, False], [True, True], [False, False], [False, True]])
    # Sentence 2 states nothing, 0 finding a, 1 both of which b is predicted, 3 finding b. The query of no sentence,
    # which reads the prototype of both findings, does not count.
    prototype = np.array([[2, 0, 2, 1], [2, 1, 2, 2]])
    found = matched_findings(truth, STATED, predicted, prototype, texts, seed=0)
    assert found["stated"] == 4 and found["value"] == 3 / 4
    wrong = np.array([[0, 3, 2, 3], [2, 0, 2, 2]])
    assert matched_findings(truth, STATED, predicted, wrong, texts, seed=0)["value"] == 0


def test_predictions_that_say_the_same_everywhere_are_at_chance(rng: np.random.Generator) -> None:
    lengths = [2, 4, 1, 3, 4]
    sentences = torch.tensor(rng.normal(size=(sum(lengths), 6)), dtype=torch.float32)
    truth, predicted = rng.random((sum(lengths), 2)) < 0.4, torch.tensor(rng.normal(size=(5, 4, 6)))
    found = matched_findings(truth, STATED, predicted, np.full((5, 4), 0), reports(sentences, lengths), seed=1)
    assert found["value"] == pytest.approx(truth[:, 0].sum() / truth.sum()) == pytest.approx(found["chance"])


@pytest.mark.parametrize("lengths", [[3, 1, 4, 2, 4, 1], [1, 1], [4]])
def test_value_and_chance_are_those_of_scipys_matching(lengths: list[int], rng: np.random.Generator) -> None:
    images, queries, total = len(lengths), 4, sum(lengths)
    sentences, predicted = rng.normal(size=(total, 5)), rng.normal(size=(images, queries, 5))
    truth = rng.random((total, 2)) < 0.5
    truth[0, 0] = True
    prototype = rng.integers(0, 4, (images, queries))
    offsets = np.concatenate([[0], np.cumsum(lengths)])

    def share(order: np.ndarray) -> float:
        hits = 0
        for report, image in enumerate(order):
            first = offsets[report]
            own = sentences[first : offsets[report + 1]]
            apart = np.abs(predicted[image][:, None] - own[None]).sum(axis=-1)
            # A query without a sentence has the target zero.
            zero = np.abs(predicted[image]).sum(axis=-1)[:, None].repeat(queries - len(own), axis=1)
            for query, column in zip(*linear_sum_assignment(np.concatenate([apart, zero], axis=1))):
                if column < len(own):
                    hits += (STATED[prototype[image, query]] & truth[first + column]).sum()
        return hits / truth.sum()

    texts = reports(torch.tensor(sentences), lengths)
    found = matched_findings(truth, STATED, torch.tensor(predicted), prototype, texts, seed=3)
    assert found["value"] == pytest.approx(share(np.arange(images)))
    others = [share(order) for order in pairings(images, 3)]
    assert found["chance"] == (pytest.approx(np.mean(others)) if others else None)


def test_without_a_stated_finding_there_is_no_share() -> None:
    found = matched_findings(
        np.zeros((2, 2), bool), STATED, torch.ones(1, 3, 2), np.zeros((1, 3), int), reports(torch.eye(2), [2]), seed=0
    )
    assert found == {"stated": 0, "value": None, "chance": None, "note": "no sentence states a finding"}
