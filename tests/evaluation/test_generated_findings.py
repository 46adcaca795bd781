"""Sets of findings, and what generated prototypes say, with right answers that are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.generated_findings import (
    Reports,
    find_silence,
    findings_of_prototypes,
    generated_findings,
    norms,
    separate,
    spoken_findings,
    true_findings,
)
from prior_fast.evaluation.read_sentences import ReadSentences, read_sentences
from prior_fast.evaluation.set_metrics import pairings, precision_recall_f1, set_metrics
from prior_fast.evaluation.statements import FINDINGS, read_statement
from prior_fast.training.checkpoint import open_checkpoint

NAMES = ("a", "b")


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> Encoder:
    return Encoder(open_checkpoint(checkpoint), "cpu")


def test_perfect_sets(rng: np.random.Generator) -> None:
    truth = rng.random((60, 2)) < 0.3
    found = set_metrics(truth, truth, NAMES, seed=0)
    for part in (found["overall"], *found["findings"].values()):
        for key in ("precision", "recall", "f1"):
            assert part[key]["value"] == 1 and part[key]["chance"] < 0.6
    assert found["macro_f1"]["value"] == 1


def test_useless_sets_are_at_their_chance_level() -> None:
    # The same prediction for every image: another image's is as good.
    truth = np.array([[True, False], [False, True], [True, False], [False, False]])
    found = set_metrics(truth, np.tile([True, False], (4, 1)), NAMES, seed=0)
    for key in ("precision", "recall", "f1"):
        assert found["findings"]["a"][key]["value"] == pytest.approx(found["findings"]["a"][key]["chance"])
    assert found["findings"]["b"]["precision"]["value"] is None
    assert found["findings"]["b"]["precision"]["note"] == "nothing is predicted"
    assert found["findings"]["b"]["f1"]["value"] == 0


def test_counts_by_hand() -> None:
    truth, predicted = np.array([True, True, True, False]), np.array([True, False, False, True])
    assert precision_recall_f1(truth, predicted) == (1 / 2, 1 / 3, pytest.approx(2 / 5))
    nothing = np.zeros(4, bool)
    assert precision_recall_f1(nothing, nothing) == (None, None, None)
    assert precision_recall_f1(nothing, truth) == (0, None, 0)


def test_a_finding_that_no_report_has_is_left_out_of_the_mean() -> None:
    truth = np.array([[True, False], [False, False]])
    found = set_metrics(truth, truth, NAMES, seed=0)
    assert found["findings"]["b"]["f1"]["value"] is None and found["macro_f1"]["value"] == 1


def test_chance_pairs_no_image_with_itself() -> None:
    for count in (2, 3, 17):
        for order in pairings(count, seed=0):
            assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert pairings(1, seed=0) == []
    alone = set_metrics(np.ones((1, 2), bool), np.ones((1, 2), bool), NAMES, seed=0)
    assert alone["overall"]["f1"] == {"value": 1.0, "chance": None}


def test_the_threshold_separates_matched_queries() -> None:
    sizes, matched = np.array([9.0, 8.0, 7.0, 1.0, 2.0]), np.array([True, True, True, False, False])
    found = separate(sizes, matched)
    assert found.threshold == 7 and found.auroc == 1
    assert separate(sizes, ~matched).auroc == 0
    assert separate(sizes, np.ones(5, bool)).threshold == 0


def test_equal_norms_let_every_query_speak() -> None:
    found = separate(np.ones(4), np.array([True, False, True, False]))
    assert found.auroc == 0.5 and (np.ones(4) >= found.threshold).all()


def test_prototypes_say_what_most_of_their_sentences_say() -> None:
    sentences = ["Left edema.", "Right edema.", "Effusion.", "No edema.", "No edema.", "Edema.", "Possible edema."]
    said = [read_statement(text) for text in sentences]
    read = ReadSentences(sentences, said, np.zeros((7, 2)), np.array([0, 0, 0, 2, 2, 2, 3]), 5)
    stated = findings_of_prototypes(read)
    # The sides of prototype 0 differ and its findings agree; 2 denies; 3 is only possible; 1 and 4 have no sentence.
    assert stated.sum() == 1 and stated[0, FINDINGS.index("Edema")]


def test_only_speaking_queries_count() -> None:
    stated = np.array([[True, False], [False, True], [False, False]])
    prototype, speaks = np.array([[0, 1], [2, 1]]), np.array([[True, False], [True, True]])
    assert spoken_findings(prototype, speaks, stated).tolist() == [[True, False], [False, True]]


def test_findings_of_reports() -> None:
    found = true_findings([["Edema.", "No effusion."], ["Bones are intact."]])
    assert found[0].tolist() == [name == "Edema" for name in FINDINGS] and not found[1].any()


def test_a_decoder_that_predicts_the_report_reaches_the_reports_own_score(
    encoder: Encoder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PreparedDataset.open(store, "test")
    reports = Reports.of(encoder, dataset, np.arange(len(dataset)))
    read = read_sentences(encoder, [dataset.sentences(study) for study in range(len(dataset))])
    texts = encoder.texts(reports.sentences)
    queries = encoder.model.config.sentence_decoder.queries
    perfect = torch.zeros(len(reports.rows), queries, texts.sentences.shape[1])
    for row, (begin, end) in enumerate(zip(texts.cu_sentences[:-1], texts.cu_sentences[1:])):
        # Embeddings before the bank, in another order: every one of them reads the prototype of its sentence.
        perfect[row, : end - begin] = texts.sentences[begin:end].flip(0)
    monkeypatch.setattr("prior_fast.evaluation.generated_findings.predict_prototypes", lambda *_: perfect)
    found = generated_findings(encoder, reports, reports, read, seed=0)
    assert found.metrics["silence"]["auroc_of_norm"] == 1
    assert found.metrics["speaking_queries"] == found.metrics["sentences"]
    for key in ("overall", "macro_f1", "findings"):
        assert found.metrics[key] == found.metrics["from_reports"][key]
    assert found.truth.sum() == len(dataset)  # one study has two findings, one has none


def test_silent_queries_are_those_that_training_matches_to_zero(encoder: Encoder, store: Path) -> None:
    dataset = PreparedDataset.open(store, "test")
    reports = Reports.of(encoder, dataset, np.arange(3))
    texts = encoder.texts(reports.sentences)
    queries = encoder.model.config.sentence_decoder.queries
    predicted = torch.full((3, queries, texts.prototypes.shape[1]), 1e-3)
    for row, (begin, end) in enumerate(zip(texts.cu_sentences[:-1], texts.cu_sentences[1:])):
        predicted[row, : end - begin] = texts.prototypes[begin:end]
    found = find_silence(encoder, reports, predicted)
    assert (norms(predicted) >= found.threshold).sum() == len(texts.prototypes)


def test_sentences_are_encoded_in_their_reports(encoder: Encoder, store: Path) -> None:
    dataset = PreparedDataset.open(store, "train")
    reports = [dataset.sentences(study) for study in range(4)]
    read = read_sentences(encoder, [*reports[:2], ["  "], *reports[2:]])
    assert read.sentences == [sentence for report in reports for sentence in report]
    whole, alone = encoder.texts(reports), encoder.texts([[sentence] for report in reports for sentence in report])
    np.testing.assert_allclose(read.embedded, whole.sentences.numpy(), atol=1e-5)
    assert np.abs(read.embedded - alone.sentences.numpy()).max() > 1e-3
    bank = encoder.model.sentence_bank.embed.weight.detach().numpy()
    np.testing.assert_array_equal(read.prototype, (read.embedded @ bank.T).argmax(axis=1))


def test_a_report_that_is_too_long_keeps_its_first_sentences(encoder: Encoder) -> None:
    long = [f"Pulmonary edema is {word} ." for word in ("mild", "moderate", "severe") for _ in range(30)]
    long = ["The bones are intact .", *long, "No pneumothorax ."]
    read = read_sentences(encoder, [long, ["Lungs are well expanded ."]])
    count = len(read.sentences) - 1
    assert 10 < count < len(long)
    assert read.sentences == [*long[:count], "Lungs are well expanded ."]
    assert len(read.embedded) == len(read.prototype) == len(read.statements) == count + 1
