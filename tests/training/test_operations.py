"""The counted operations against those that torch counts while the model runs."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.config import ModelConfig, preset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.operations import Sizes, forward_operations, sizes_of, step_operations
from prior_fast.training.stages import STAGES, StepContext, weighted_sum


def narrow_paper(name: str) -> ModelConfig:
    """A preset of full depth whose widths are an eighth to a sixteenth."""
    model = preset(name).model
    return dataclasses.replace(
        model,
        image=dataclasses.replace(model.image, width=8, weights="random"),
        text=dataclasses.replace(
            model.text, weights="random", hidden_size=96, heads=12, intermediate_size=384, dropout=0.0
        ),
        bank=dataclasses.replace(model.bank, prototypes=64),
        sentence_decoder=dataclasses.replace(model.sentence_decoder, intermediate_size=384, dropout=0.0),
        embed_dim=96,
    )


def make_batch(rng: np.random.Generator, sentences: list[list[int]]) -> PackedBatch:
    """Reports whose sentences have the given numbers of tokens."""
    reports = [[rng.integers(5, 50, n) for n in report] for report in sentences]
    images = torch.tensor(rng.normal(size=(len(reports), 1, 224, 224)), dtype=torch.float32)
    numbers = torch.arange(len(reports))
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


def counted(model: PRIORModel, batch: PackedBatch, stage: int) -> tuple[FlopCounterMode, dict[str, Tensor]]:
    # The reference of an op is plain matrix products, which torch's counter knows. So is attention by its formula; of
    # flash attention on CPUs torch 2.14 counts nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        terms = STAGES[stage](model, batch, StepContext(0.5, seed=7))
    return counter, terms


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", ["tiny", "paper", "released"])
def test_forward_operations_are_those_that_torch_counts(name: str, stage: int, rng: np.random.Generator) -> None:
    config = preset("tiny").model if name == "tiny" else narrow_paper(name)
    model = PRIORModel(config, vocab_size=50)
    batch = make_batch(rng, [[9, 5, 12, 8]] * 3)
    counter, _ = counted(model, batch, stage)
    expected = forward_operations(config, stage, sizes_of([batch]))
    assert sum(expected.values()) == pytest.approx(counter.get_total_flops(), rel=0.01)
    by_module = counter.get_flop_counts()
    parts = {"image_encoder": "ImageEncoder.encoder", "image_pool": "ImageEncoder.atten_pool"}
    if stage == 3:
        parts |= {"sentence_decoder": "SentenceDecoder", "image_decoder": "ImageDecoder"}
    for part, module in parts.items():
        assert expected[part] == pytest.approx(sum(by_module[module].values()), rel=0.01), part


def test_backward_operations_are_those_that_torch_counts(rng: np.random.Generator) -> None:
    config = preset("tiny").model
    model = PRIORModel(config, vocab_size=50)
    model.requires_grad_(True)
    batch = make_batch(rng, [[9, 5, 12, 8]] * 3)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        terms = STAGES[3](model, batch, StepContext(0.5, seed=7))
        weighted_sum(terms, preset("tiny").loss, 3).backward()
    assert step_operations(config, 3, sizes_of([batch])) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_sums_of_sizes_count_as_the_steps_do(rng: np.random.Generator) -> None:
    config = narrow_paper("paper")
    batches = [make_batch(rng, [[3, 4], [5]]), make_batch(rng, [[7, 1, 1], [2], [9, 9]])]
    for stage in (1, 2, 3):
        apart = sum(step_operations(config, stage, sizes_of([batch])) for batch in batches)
        assert step_operations(config, stage, sizes_of(batches)) == apart


def test_a_batch_of_the_papers_size_needs_what_was_counted_for_it() -> None:
    """Batch 128 of 90 tokens and 16 sentences: 17.75 TFLOP in stage 3 with the linear projections."""
    config = dataclasses.replace(preset("paper").model, projection="linear")
    sizes = Sizes(128, 128 * 90, 128 * 16, 128**2, 128 * 90**2, 128 * 16**2)
    assert step_operations(config, 3, sizes) == pytest.approx(17.75e12, rel=0.02)
