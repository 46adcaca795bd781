"""Batches for measurements: made up, with reports of realistic lengths, or from a prepared dataset."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.config import RunConfig
from prior_fast.errors import UsageError

# Sentences of a made-up report: at least the minimum of `prepare mimic`, at most the sentence decoder's queries.
FEWEST_SENTENCES, MOST_SENTENCES = 4, 16
VOCABULARY = 28_996  # of Bio_ClinicalBERT
SHORTEST, TOKENS_OF_A_SENTENCE = 3, 11
CLS, SEP = 101, 102


def made_up_batches(config: RunConfig, number: int, mean_tokens: int, vocabulary: int, seed: int) -> list[PackedBatch]:
    """`number` batches of noise images and random tokens; reports have `mean_tokens` tokens on average over a batch.

    Raises:
        UsageError: `mean_tokens` is too large or too small.
    """
    most, least = config.data.max_tokens, FEWEST_SENTENCES * SHORTEST + 2
    if not least <= mean_tokens <= most:
        raise UsageError(f"--mean-tokens {mean_tokens}: must be {least} to {most}")
    rng = np.random.default_rng(seed)
    return [_batch(config, mean_tokens, vocabulary, rng) for _ in range(number)]


def _batch(config: RunConfig, mean_tokens: int, vocabulary: int, rng: np.random.Generator) -> PackedBatch:
    pairs = config.batch_size
    reports = [
        [rng.integers(min(1000, vocabulary // 2), vocabulary, tokens) for tokens in lengths]
        for lengths in _lengths(pairs, mean_tokens, config.data.max_tokens, config, rng)
    ]
    text = pack_reports(reports, min(CLS, vocabulary - 2), min(SEP, vocabulary - 1))
    images = torch.from_numpy(rng.standard_normal((pairs, 1, 224, 224), dtype=np.float32))
    numbers = torch.arange(pairs)
    return text.with_images(images, study_ids=numbers, image_rows=numbers)


def _lengths(pairs: int, mean_tokens: int, most: int, config: RunConfig, rng: np.random.Generator) -> list[list[int]]:
    """The number of tokens of each sentence of each report.

    Report lengths are log-normal, roughly as those of real reports. They are clipped to the range and then adjusted to
    the mean.
    """
    least = FEWEST_SENTENCES * SHORTEST + 2
    totals = np.clip(mean_tokens * np.exp(rng.normal(-0.08, 0.4, pairs)), least, most).astype(int)
    # Clipping and chance change the mean: add or remove single tokens where there is room, until the mean is exact.
    while (missing := mean_tokens * pairs - int(totals.sum())) != 0:
        step = int(math.copysign(1, missing))
        room = np.flatnonzero((totals + step >= least) & (totals + step <= most))
        totals[rng.permutation(room)[: abs(missing)]] += step
    limit = min(MOST_SENTENCES, config.model.sentence_decoder.queries)
    return [_split(int(total) - 2, limit, rng) for total in totals]


def _split(tokens: int, limit: int, rng: np.random.Generator) -> list[int]:
    """`tokens` divided among sentences of about 11 tokens, each of at least 3."""
    wanted = round(tokens / TOKENS_OF_A_SENTENCE)
    count = min(max(wanted, FEWEST_SENTENCES), limit, tokens // SHORTEST)
    shares = rng.multinomial(tokens - count * SHORTEST, rng.dirichlet(np.full(count, 4.0)))
    return [SHORTEST + int(share) for share in shares]


def dataset_batches(config: RunConfig, stage: int, number: int, data: Path) -> tuple[list[PackedBatch], int]:
    """The first `number` training batches of the prepared dataset at `data` for `stage`, and its vocabulary size.

    Raises:
        UsageError: there is no dataset, or it has fewer training studies than a batch.
    """
    from prior_fast.data.loader import LoaderConfig, TrainingLoader
    from prior_fast.data.prepared_dataset import PreparedDataset

    dataset = PreparedDataset.open(data, "train")
    loader = TrainingLoader(dataset, LoaderConfig(config.data, config.batch_size, config.seed))
    queries = config.model.sentence_decoder.queries if stage == 3 else 0
    loader = loader.limited(queries, config.data.partial_reports[stage - 1])
    return list(islice(loader.epoch(0), number)), dataset.vocab_size
