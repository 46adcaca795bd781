"""The contents of each batch of an epoch. They depend only on seed, epoch and batch number; no image is read.

Every draw is a counter-based random number (`prior_fast.ops.common.philox`) whose counter is the study's id or the row
of the sentence. It depends neither on the batch of the study nor on the number of ranks and workers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from prior_fast.config import DataConfig
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.ops.common.philox import philox_uint32

# High words of the counters: independent streams of an epoch's draws.
_OF_STUDY, _OF_SENTENCE, _OF_REPORT = 0, 1, 2


@dataclass(frozen=True)
class LoaderConfig:
    """How training batches are made.

    Attributes:
        data: augmentation, text and source settings.
        batch_size: pairs in a batch, over all ranks.
        seed: the seed of the order, the choice of images and sentences, and the augmentation.
        max_sentences: sentences that a report keeps after the shuffle, at most; 0 keeps all.
        partial_reports: the share of reports that keep only a drawn number of their sentences, from one to all. Of n
            sentences, k are kept with a probability of log(1 + 1/k) / log(1 + n).
        rank, ranks: this process's rank and the number of ranks. It gets pairs [rank, rank + 1) * batch_size / ranks
            of each batch.
    """

    data: DataConfig
    batch_size: int
    seed: int
    max_sentences: int = 0
    partial_reports: float = 0.0
    rank: int = 0
    ranks: int = 1

    def check(self, dataset: PreparedDataset) -> None:
        """Raise UsageError unless `dataset` fills a batch and the ranks can share it evenly."""
        if self.batch_size % self.ranks:
            raise UsageError(f"batch_size={self.batch_size} can't be shared evenly by {self.ranks} processes")
        if len(dataset) < 2:
            raise UsageError(
                f"{dataset.root} has {len(dataset)} studies in its {dataset.split} split: at least 2 are needed"
            )
        if len(dataset) < self.batch_size:
            raise UsageError(
                f"batch_size={self.batch_size} is more than the {len(dataset)} studies of the {dataset.split} split "
                f"of {dataset.root}: lower batch_size"
            )


@dataclass(frozen=True)
class BatchPlan:
    """One rank's part of a batch, before any image or text is read. Letters: B pairs, S sentences.

    Attributes:
        studies: [B] int64, numbers of studies in the dataset.
        image_rows: [B] int64, rows of `PreparedDataset.images`.
        angles: [B] float32, degrees.
        flips: [B] bool.
        sentences: [S] int64, rows of the dataset's sentences, in the order of the batch.
        lengths: [S] int64, tokens used of each sentence: all, unless a report's first sentence alone is too long.
        cu_sentences: [B + 1] int64, offsets of the reports in the sentences.
        first_pair, first_sentence, sentence_share: as in `PackedBatch`.
    """

    studies: np.ndarray
    image_rows: np.ndarray
    angles: np.ndarray
    flips: np.ndarray
    sentences: np.ndarray
    lengths: np.ndarray
    cu_sentences: np.ndarray
    first_pair: int
    first_sentence: int
    sentence_share: float


def batches_per_epoch(studies: int, batch_size: int, last: Literal["drop", "fill"]) -> int:
    """Batches in an epoch. An incomplete last batch is dropped ("drop") or filled up ("fill")."""
    return studies // batch_size if last == "drop" else -(-studies // batch_size)


class EpochPlan:
    """The plans of one epoch's batches, by number."""

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig, epoch: int) -> None:
        self.dataset = dataset
        self.config = config
        # The keys of different runs are far apart, so that no two epochs share a stream.
        self._key = (config.seed * 0x9E3779B97F4A7C15 + epoch) % 2**63
        order = np.random.default_rng([config.seed, epoch]).permutation(len(dataset))
        missing = batches_per_epoch(len(order), config.batch_size, config.data.last) * config.batch_size - len(order)
        # A last batch is filled up with the first studies of the epoch.
        self.order = np.concatenate([order, order[: max(missing, 0)]])

    def __getitem__(self, number: int) -> BatchPlan:
        config, dataset = self.config, self.dataset
        joined = self.order[number * config.batch_size : (number + 1) * config.batch_size]
        per_rank = config.batch_size // config.ranks
        first = config.rank * per_rank
        sentences, lengths, counts = self._sentences(joined)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        begin, end = offsets[first], offsets[first + per_rank]
        studies = joined[first : first + per_rank]
        image_word, angle_word, flip_word, _ = self._words(dataset.study_ids[studies], _OF_STUDY)
        images = dataset.image_end[studies] - dataset.image_begin[studies]
        rotation = config.data.rotation
        return BatchPlan(
            studies=studies,
            image_rows=dataset.image_begin[studies] + (image_word * images >> 32),
            angles=((angle_word / 2**31 - 1) * rotation).astype(np.float32),
            flips=(flip_word < 2**31) & config.data.flip,
            sentences=sentences[begin:end],
            lengths=lengths[begin:end],
            cu_sentences=offsets[first : first + per_rank + 1] - begin,
            first_pair=first,
            first_sentence=int(begin),
            sentence_share=float((end - begin) * config.ranks / offsets[-1]),
        )

    def _sentences(self, studies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and lengths of the sentences that the studies' reports keep, and their number in each report."""
        dataset, data = self.dataset, self.config.data
        counts = dataset.sentence_counts[studies]
        rows = concatenated_ranges(dataset.sentence_begin[studies], counts)
        report = np.repeat(np.arange(len(studies)), counts)
        if data.shuffle_sentences:
            rows = rows[np.lexsort((self._words(rows, _OF_SENTENCE)[0], report))]
        limits = self._limits(studies, counts)
        return cut_reports(rows, dataset.sentence_lengths[rows], report, data.max_tokens, limits)

    def _limits(self, studies: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """How many of its `counts` sentences each study's report may keep."""
        config, limits = self.config, counts
        if config.partial_reports:
            share, number, _, _ = self._words(self.dataset.study_ids[studies], _OF_REPORT)
            # Log-uniform: of 9 sentences, one alone is kept in 30 % of the draws and all of them in 5 %.
            drawn = np.exp(np.log1p(counts) * (number / 2**32)).astype(np.int64)
            limits = np.where(share < config.partial_reports * 2**32, drawn.clip(1, counts), counts)
        return np.minimum(limits, config.max_sentences) if config.max_sentences else limits

    def _words(self, counters: np.ndarray, stream: int) -> list[np.ndarray]:
        """The four random 32-bit words of each counter, as int64."""
        words = philox_uint32(self._key, torch.from_numpy(np.ascontiguousarray(counters, np.int64)), stream)
        return [word.numpy() for word in words]


def concatenated_ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ranges begins[i], ..., begins[i] + counts[i] - 1 for all i, concatenated."""
    offsets = np.cumsum(counts) - counts
    return np.repeat(begins - offsets, counts) + np.arange(counts.sum())


def cut_reports(
    rows: np.ndarray, lengths: np.ndarray, report: np.ndarray, max_tokens: int, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep as many whole sentences of each report as fit into `max_tokens` together with [CLS] and [SEP].

    The first sentence is truncated if it does not fit alone. Every report must have a sentence.

    Args:
        rows, lengths, report: [S], for each sentence its row, its tokens and its report. Reports are consecutive and
            numbered from 0.
        max_tokens: limit for a report, including [CLS] and [SEP].
        limits: the sentences that each report keeps at most, 1 or more.

    Returns:
        Rows and lengths of the sentences that are kept, and their number in each report.
    """
    room = max_tokens - 2
    counts = np.bincount(report)
    begins = np.cumsum(counts) - counts
    place = np.arange(len(rows)) - np.repeat(begins, counts)
    sums = np.cumsum(lengths)
    within = sums - np.repeat(sums[begins] - lengths[begins], counts)
    kept = ((within <= room) | (place == 0)) & (place < np.repeat(limits, counts))
    return rows[kept], np.minimum(lengths[kept], room), np.bincount(report[kept], minlength=len(counts))
