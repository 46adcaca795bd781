"""Batches of a prepared dataset: every study once per epoch, shared by ranks, and reproducible from their number."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.batch import PackedBatch
from prior_fast.config import DataConfig
from prior_fast.data.loader import LoaderConfig, TrainingLoader, evaluation_batches
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError

CONFIG = LoaderConfig(DataConfig(workers=0), batch_size=4, seed=3)


@pytest.fixture(scope="module")
def dataset(small_store: Path) -> PreparedDataset:
    return PreparedDataset.open(small_store, "train")


def equal(a: PackedBatch, b: PackedBatch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def sentences_of(batch: PackedBatch) -> list[list[list[int]]]:
    """The tokens of each sentence of each report."""
    inner = batch.token_ids[batch.sentence_token_rows()]
    sentences = [tokens.tolist() for tokens in torch.tensor_split(inner, batch.cu_sentence_tokens[1:-1].long())]
    offsets = batch.cu_sentences.tolist()
    return [sentences[begin:end] for begin, end in itertools.pairwise(offsets)]


def test_an_epoch_has_each_study_once(dataset: PreparedDataset) -> None:
    loader = TrainingLoader(dataset, CONFIG)
    seen = torch.cat([batch.study_ids for batch in loader.epoch(0)])
    assert len(seen) == len(loader) * 4
    assert len(seen) > len(dataset) - 4
    assert seen.unique().numel() == len(seen)
    assert set(seen.tolist()) <= set(dataset.study_ids.tolist())


def test_epochs_and_seeds_differ_and_repeat(dataset: PreparedDataset) -> None:
    first = next(TrainingLoader(dataset, CONFIG).epoch(0))
    assert equal(first, next(TrainingLoader(dataset, CONFIG).epoch(0)))
    assert not equal(first, next(TrainingLoader(dataset, CONFIG).epoch(1)))
    assert not equal(first, next(TrainingLoader(dataset, dataclasses.replace(CONFIG, seed=4)).epoch(0)))


def test_an_epoch_can_begin_in_its_middle_and_in_workers(dataset: PreparedDataset) -> None:
    loader = TrainingLoader(dataset, CONFIG)
    whole = list(loader.epoch(2))
    assert len(whole) == len(loader) >= 4
    assert all(equal(a, b) for a, b in zip(whole[2:4], loader.epoch(2, 2, 4), strict=True))
    in_workers = dataclasses.replace(CONFIG, data=DataConfig(workers=2))
    assert all(equal(a, b) for a, b in zip(whole, TrainingLoader(dataset, in_workers).epoch(2), strict=True))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_a_batch(dataset: PreparedDataset, ranks: int) -> None:
    joined = next(TrainingLoader(dataset, CONFIG).epoch(0))
    parts = [
        next(TrainingLoader(dataset, dataclasses.replace(CONFIG, rank=rank, ranks=ranks)).epoch(0))
        for rank in range(ranks)
    ]
    for name in ("images", "token_ids", "study_ids", "image_rows", "position_ids"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(joined, name))
    assert [part.first_pair for part in parts] == [rank * 4 // ranks for rank in range(ranks)]
    assert [part.first_sentence for part in parts] == joined.cu_sentences[:-1][:: 4 // ranks].tolist()
    assert sum(part.sentence_share for part in parts) == pytest.approx(ranks)
    assert (joined.first_pair, joined.first_sentence, joined.sentence_share) == (0, 0, 1.0)


def test_sentences_are_those_of_the_report(dataset: PreparedDataset) -> None:
    tokens = {int(study): dataset.sentence_tokens(i) for i, study in enumerate(dataset.study_ids)}
    shuffled = False
    for batch in TrainingLoader(dataset, CONFIG).epoch(0):
        for study, own in zip(batch.study_ids.tolist(), sentences_of(batch), strict=True):
            expected = [s.tolist() for s in tokens[study]]
            assert sorted(own) == sorted(expected)
            shuffled |= own != expected
    assert shuffled


def test_sentences_of_a_report_are_shuffled_anew_in_each_epoch(dataset: PreparedDataset) -> None:
    loader = TrainingLoader(dataset, CONFIG)
    kept = {int(study): [s.tolist() for s in dataset.sentence_tokens(i)] for i, study in enumerate(dataset.study_ids)}
    orders: dict[int, list[list[list[int]]]] = {}
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            for study, own in zip(batch.study_ids.tolist(), sentences_of(batch), strict=True):
                assert sorted(own) == sorted(kept[study])
                orders.setdefault(study, []).append(own)
    long = [study for study, found in orders.items() if len(kept[study]) >= 4 and len(found) == 3]
    assert len(long) > 5
    moved = sum(order != kept[study] for study in long for order in orders[study])
    anew = sum(orders[study][0] != orders[study][1] for study in long)
    # At most one order in 24 is by chance the report's own, or that of the epoch before.
    assert moved > 0.7 * 3 * len(long) and anew > 0.6 * len(long)


def test_order_is_kept_and_sentences_are_limited_on_demand(dataset: PreparedDataset) -> None:
    data = DataConfig(workers=0, shuffle_sentences=False, rotation=0.0)
    config = dataclasses.replace(CONFIG, data=data, max_sentences=3)
    batch = next(TrainingLoader(dataset, config).epoch(0))
    assert batch.cu_sentences.tolist() == [0, 3, 6, 9, 12]
    index = dataset.study_ids.tolist().index(batch.study_ids[0])
    expected = torch.cat([torch.as_tensor(s) for s in dataset.sentence_tokens(index)[:3]])
    assert torch.equal(batch.token_ids[1 : 1 + len(expected)], expected.long())
    raw = torch.tensor(dataset.images[batch.image_rows.numpy()]).float() / 255
    assert (batch.images[:, 0] * dataset.image_std + dataset.image_mean - raw).abs().max() < 1e-5


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_partial_reports_keep_the_first_sentences_after_the_shuffle(dataset: PreparedDataset, share: float) -> None:
    loader = TrainingLoader(dataset, CONFIG)
    partial = loader.limited(0, share)
    cut = reports = 0
    kept: dict[int, Counter[int]] = {}
    for epoch in range(60):
        for whole, part in zip(loader.epoch(epoch), partial.epoch(epoch), strict=True):
            assert torch.equal(whole.images, part.images) and torch.equal(whole.study_ids, part.study_ids)
            pairs = zip(sentences_of(whole), sentences_of(part), strict=True)
            for own, first in pairs:
                assert 1 <= len(first) <= len(own) and first == own[: len(first)]
                kept.setdefault(len(own), Counter())[len(first)] += 1
                cut, reports = cut + (len(first) < len(own)), reports + 1
            assert part.max_sentences == max(map(len, sentences_of(part)))
    # Of n sentences, k are kept in a share of log(1 + 1 / k) / log(1 + n) of the partial reports.
    whole_share = np.mean([np.log1p(1 / n) / np.log1p(n) for n in dataset.sentence_counts])
    assert cut / reports == pytest.approx(share * (1 - whole_share), abs=0.04)
    often = max(kept, key=lambda n: sum(kept[n].values()))
    shares = [kept[often][k] / sum(kept[often].values()) for k in range(1, often + 1)]
    expected = share * np.log1p(1 / np.arange(1, often + 1)) / np.log1p(often)
    expected[-1] += 1 - share
    assert shares == pytest.approx(expected, abs=0.08)


def test_the_parts_of_reports_do_not_depend_on_the_ranks(dataset: PreparedDataset) -> None:
    joined = [sentences_of(batch) for batch in TrainingLoader(dataset, CONFIG).limited(2, 0.5).epoch(3)]
    halves = [
        TrainingLoader(dataset, dataclasses.replace(CONFIG, rank=rank, ranks=2)).limited(2, 0.5).epoch(3)
        for rank in range(2)
    ]
    parts = [[*sentences_of(a), *sentences_of(b)] for a, b in zip(*halves, strict=True)]
    assert parts == joined
    assert {len(report) for batch in joined for report in batch} == {1, 2}


def test_images_belong_to_their_studies_and_all_are_drawn(dataset: PreparedDataset) -> None:
    loader = TrainingLoader(dataset, CONFIG)
    drawn: set[int] = set()
    for epoch in range(12):
        for batch in loader.epoch(epoch):
            for study, row in zip(batch.study_ids.tolist(), batch.image_rows.tolist()):
                assert row in dataset.image_rows(dataset.study_ids.tolist().index(study))
                drawn.add(row)
    assert drawn == {row for i in range(len(dataset)) for row in dataset.image_rows(i)}


def test_evaluation_sees_every_study_in_order_as_it_is(small_store: Path) -> None:
    dataset = PreparedDataset.open(small_store, "test")
    batches = list(evaluation_batches(dataset, 3, 256))
    assert torch.cat([batch.study_ids for batch in batches]).tolist() == dataset.study_ids.tolist()
    rows = torch.cat([batch.image_rows for batch in batches]).tolist()
    assert rows == [dataset.image_rows(i)[0] for i in range(len(dataset))]
    assert sum(batch.num_sentences for batch in batches) == dataset.sentence_counts.sum()


def test_batches_that_cannot_be_are_refused(dataset: PreparedDataset) -> None:
    with pytest.raises(UsageError, match=f"batch_size=1000 is more than the {len(dataset)} studies of the train split"):
        TrainingLoader(dataset, dataclasses.replace(CONFIG, batch_size=1000))
    with pytest.raises(UsageError, match="batch_size=4 can't be shared evenly by 3 processes"):
        TrainingLoader(dataset, dataclasses.replace(CONFIG, ranks=3))
