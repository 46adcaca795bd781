"""Batches of a prepared dataset. They depend only on seed, epoch and number, so a run can resume at any batch."""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.data.batch_plan import BatchPlan, EpochPlan, LoaderConfig, batches_per_epoch, cut_reports
from prior_fast.data.packing import TextStore
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.open import open_image_source
from prior_fast.radiology.normalize import normalize

CPU = torch.device("cpu")


class TrainingLoader:
    """Shuffled batches of a split.

    Raises:
        UsageError: the split has fewer studies than a batch, the ranks can't share a batch evenly, or the source of
            images can't be used.
    """

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig, device: torch.device = CPU) -> None:
        config.check(dataset)
        self.dataset, self.config, self.device = dataset, config, device
        self.source = open_image_source(dataset, config, device)
        # If the images are made on the GPU, the text is packed there too. Otherwise whole batches are copied to it.
        self.text = TextStore(dataset, self.source.compute, config.data.token_bucket)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return batches_per_epoch(len(self.dataset), self.config.batch_size, self.config.data.last)

    def limited(self, max_sentences: int, partial_reports: float = 0.0) -> "TrainingLoader":
        """A loader with the same source, and the limits of `LoaderConfig`."""
        other = copy.copy(self)
        other.config = replace(self.config, max_sentences=max_sentences, partial_reports=partial_reports)
        return other

    def epoch(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[PackedBatch]:
        """The batches of `epoch` from number `first` up to, but not including, `last`; None is the end."""
        plans = EpochPlan(self.dataset, self.config, epoch)
        # A source reads plans ahead of the images that it yields.
        pending: deque[BatchPlan] = deque()

        def taken() -> Iterator[BatchPlan]:
            for number in range(first, len(self) if last is None else last):
                plan = plans[number]
                pending.append(plan)
                yield plan

        for images in self.source.stream(taken()):
            yield self._batch(pending.popleft(), images)

    def _batch(self, plan: BatchPlan, images: Tensor) -> PackedBatch:
        return self.text.pack(plan).with_images(
            images,
            study_ids=torch.from_numpy(self.dataset.study_ids[plan.studies]),
            image_rows=torch.from_numpy(plan.image_rows),
            first_pair=plan.first_pair,
            first_sentence=plan.first_sentence,
            sentence_share=plan.sentence_share,
        )


def cut_report(sentences: list[np.ndarray], max_tokens: int, max_sentences: int = 0) -> list[np.ndarray]:
    """As many whole sentences as fit into `max_tokens` with [CLS] and [SEP]; the first is truncated if necessary."""
    lengths = np.array([len(sentence) for sentence in sentences])
    report = np.zeros(len(sentences), np.int64)
    limits = np.array([max_sentences or len(sentences)])
    kept, cut, _ = cut_reports(np.arange(len(sentences)), lengths, report, max_tokens, limits)
    return [sentences[index][:length] for index, length in zip(kept, cut)]


def evaluation_batches(
    dataset: PreparedDataset, batch_size: int, max_tokens: int, max_sentences: int = 0
) -> Iterator[PackedBatch]:
    """Every study once, in the dataset's order: its first image without augmentation, its sentences in order."""
    for first in range(0, len(dataset), batch_size):
        studies = range(first, min(first + batch_size, len(dataset)))
        reports = [cut_report(dataset.sentence_tokens(study), max_tokens, max_sentences) for study in studies]
        text = pack_reports(reports, dataset.cls_id, dataset.sep_id)
        rows = np.array([dataset.image_rows(study)[0] for study in studies])
        images = torch.from_numpy(dataset.images[rows])[:, None].float() / 255
        yield text.with_images(
            normalize(images, dataset.image_mean, dataset.image_std),
            study_ids=torch.tensor(dataset.study_ids[studies.start : studies.stop]),
            image_rows=torch.from_numpy(rows),
        )
