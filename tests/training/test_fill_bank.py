"""Starting the bank from sentences of the training split."""

from pathlib import Path

import torch

from prior_fast.config import apply_overrides, preset
from prior_fast.data.loader import evaluation_batches
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.build import build_model
from prior_fast.training.distributed import Ranks
from prior_fast.training.fill_bank import fill_bank

ALONE = Ranks(0, 1, None, torch.device("cpu"))


def test_prototypes_become_clusters_of_sentences(small_store: Path, small_settings: list[str]) -> None:
    config = apply_overrides(preset("tiny"), small_settings)
    dataset = PreparedDataset.open(small_store, "train")
    model, _ = build_model(config.model, dataset.vocab_size, seed=1)
    before = model.sentence_bank.embed.weight.detach().clone()
    model.train()
    fill_bank(model, dataset, config, ALONE)
    assert model.training
    bank = model.sentence_bank.embed.weight.detach()
    assert bank.requires_grad is False and model.sentence_bank.embed.weight.requires_grad
    with torch.no_grad():
        batches = evaluation_batches(dataset, 8, config.data.max_tokens)
        sentences = torch.cat([model.eval().encode_sentences(batch) for batch in batches])
    lengths = sentences.norm(dim=1)
    torch.testing.assert_close(bank.norm(dim=1), lengths.mean().expand(len(bank)), rtol=1e-5, atol=0)
    # A lookup by inner products uses all prototypes, and finds a nearer direction than any randomly drawn sentence.
    cosines = sentences @ bank.T / (lengths[:, None] * lengths.mean())
    assert cosines.argmax(dim=1).unique().numel() == len(bank)
    drawn = torch.nn.functional.normalize(sentences[:: len(sentences) // len(bank)][: len(bank)], dim=1)
    assert cosines.max(dim=1).values.mean() > (sentences @ drawn.T / lengths[:, None]).max(dim=1).values.mean()
    assert not torch.allclose(before, bank)
    again, _ = build_model(config.model, dataset.vocab_size, seed=1)
    fill_bank(again.train(), dataset, config, ALONE)
    assert torch.equal(again.sentence_bank.embed.weight, bank)


def test_fewer_sentences_than_prototypes_leave_the_rest(small_store: Path, small_settings: list[str]) -> None:
    words = [*small_settings, "model.bank.prototypes=5000"]
    config = apply_overrides(preset("tiny"), words)
    dataset = PreparedDataset.open(small_store, "train")
    model, _ = build_model(config.model, dataset.vocab_size, seed=1)
    before = model.sentence_bank.embed.weight.detach().clone()
    fill_bank(model, dataset, config, ALONE)
    changed = (model.sentence_bank.embed.weight.detach() != before).any(dim=1)
    count = int(dataset.sentence_counts.sum())
    assert changed[:count].all() and not changed[count:].any()
