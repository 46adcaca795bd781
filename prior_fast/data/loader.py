"""Batches of a prepared dataset: each a function of seed, epoch and number alone, so a run can resume anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from prior_fast.config import DataConfig
from prior_fast.data.augment import augment, normalize
from prior_fast.data.batch import PackedBatch, pack_reports
from prior_fast.data.store import PreparedDataset
from prior_fast.errors import UsageError


@dataclass(frozen=True)
class LoaderConfig:
    """How training batches are made.

    Attributes:
        data: augmentation and text settings.
        batch_size: pairs in a batch joined over all ranks.
        seed: of the order, the choice of images and sentences, and the augmentation.
        max_sentences: a report keeps this many sentences after the shuffle; 0 keeps all.
        rank, ranks: this process's place; it gets pairs [rank, rank + 1) * batch_size / ranks of each batch.
    """

    data: DataConfig
    batch_size: int
    seed: int
    max_sentences: int = 0
    rank: int = 0
    ranks: int = 1


class TrainingLoader:
    """Shuffled batches; the last, incomplete one of an epoch is dropped.

    Raises:
        UsageError: the split has fewer studies than a batch, or the batch can't be shared evenly by the ranks.
    """

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig) -> None:
        if config.batch_size % config.ranks:
            raise UsageError(f"batch_size={config.batch_size} can't be shared evenly by {config.ranks} processes")
        if len(dataset) < config.batch_size:
            raise UsageError(
                f"batch_size={config.batch_size} is more than the {len(dataset)} studies of the {dataset.split} split "
                f"of {dataset.root}: lower batch_size"
            )
        self.dataset = dataset
        self.config = config

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.dataset) // self.config.batch_size

    def epoch(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[PackedBatch]:
        """Batches number `first` up to, but not including, `last` of `epoch`; None is the end."""
        batches = EpochBatches(self.dataset, self.config, epoch)
        yield from DataLoader(
            batches,
            batch_size=None,
            sampler=range(first, len(self) if last is None else last),
            num_workers=self.config.data.workers,
            prefetch_factor=2 if self.config.data.workers else None,
        )


class EpochBatches(Dataset):
    """The batches of one epoch, by number."""

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig, epoch: int) -> None:
        self.dataset = dataset
        self.config = config
        self.epoch = epoch
        self.order = np.random.default_rng([config.seed, epoch]).permutation(len(dataset))

    def __getitem__(self, number: int) -> PackedBatch:
        config = self.config
        joined = self.order[number * config.batch_size : (number + 1) * config.batch_size]
        per_rank = config.batch_size // config.ranks
        first_pair = config.rank * per_rank
        draws = [self._draw(study) for study in joined]
        counts = [len(draw.sentences) for draw in draws]
        own = draws[first_pair : first_pair + per_rank]
        text = pack_reports([draw.sentences for draw in own], self.dataset.cls_id, self.dataset.sep_id)
        rows = np.array([draw.image_row for draw in own])
        images = augment(
            torch.from_numpy(self.dataset.images[rows]),
            angles=torch.tensor([draw.angle for draw in own], dtype=torch.float32),
            flips=torch.tensor([draw.flip for draw in own]),
        )
        return PackedBatch(
            images=normalize(images, self.dataset.image_mean, self.dataset.image_std),
            **text.tensors(),  # type: ignore[arg-type]
            study_ids=torch.tensor(self.dataset.study_ids[joined[first_pair : first_pair + per_rank]]),
            image_rows=torch.from_numpy(rows),
            first_pair=first_pair,
            first_sentence=sum(counts[:first_pair]),
            sentence_share=sum(counts[first_pair : first_pair + per_rank]) * config.ranks / sum(counts),
        )

    def _draw(self, study: int) -> "PairDraw":
        """What this epoch takes of a study, drawn from the seed, the epoch and the study's id alone."""
        data = self.config.data
        rng = np.random.default_rng([self.config.seed, self.epoch, int(self.dataset.study_ids[study])])
        sentences = self.dataset.sentence_tokens(study)
        if data.shuffle_sentences:
            sentences = [sentences[i] for i in rng.permutation(len(sentences))]
        return PairDraw(
            sentences=cut_report(sentences, data.max_tokens, self.config.max_sentences),
            image_row=int(rng.choice(np.asarray(self.dataset.image_rows(study)))),
            angle=float(rng.uniform(-data.rotation, data.rotation)),
            flip=bool(data.flip and rng.random() < 0.5),
        )


@dataclass(frozen=True)
class PairDraw:
    """One pair of an epoch: a study's sentences in their order, and one of its images."""

    sentences: list[np.ndarray]
    image_row: int
    angle: float
    flip: bool


def cut_report(sentences: list[np.ndarray], max_tokens: int, max_sentences: int = 0) -> list[np.ndarray]:
    """As many whole sentences as fit into `max_tokens` with [CLS] and [SEP]; the first is cut if even it does not."""
    kept: list[np.ndarray] = []
    room = max_tokens - 2
    for sentence in sentences[: max_sentences or None]:
        if len(sentence) > room:
            break
        kept.append(sentence)
        room -= len(sentence)
    return kept or [sentences[0][: max_tokens - 2]]


def evaluation_batches(
    dataset: PreparedDataset, batch_size: int, max_tokens: int, max_sentences: int = 0
) -> Iterator[PackedBatch]:
    """Every study once, in the dataset's order: its first image as it is, its sentences in their order."""
    for first in range(0, len(dataset), batch_size):
        studies = range(first, min(first + batch_size, len(dataset)))
        reports = [cut_report(dataset.sentence_tokens(study), max_tokens, max_sentences) for study in studies]
        text = pack_reports(reports, dataset.cls_id, dataset.sep_id)
        rows = np.array([dataset.image_rows(study)[0] for study in studies])
        images = torch.from_numpy(dataset.images[rows])[:, None].float() / 255
        yield PackedBatch(
            images=normalize(images, dataset.image_mean, dataset.image_std),
            **text.tensors(),  # type: ignore[arg-type]
            study_ids=torch.tensor(dataset.study_ids[studies.start : studies.stop]),
            image_rows=torch.from_numpy(rows),
        )
