"""A packed batch of image-report pairs: the rows of all reports are concatenated, with offsets and without padding.

Letters in shapes: B reports, S sentences, T tokens of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from prior_fast.ops.common.segments import segment_ids

# The text encoder sees the filler of a batch as so many reports, since one long report would need more attention.
FILLERS = 8


@dataclass(frozen=True)
class PackedBatch:
    """B pairs of an image and a report.

    A report's tokens are [CLS], the tokens of its sentences, and [SEP]. [CLS] and [SEP] belong to no sentence, so
    `cu_sentence_tokens` counts only the other T - 2B tokens.

    Attributes:
        images: [B, 1, H, W] float, normalized.
        token_ids: [T + filler] int64.
        position_ids: [T + filler] int64, from 0 in each report.
        cu_tokens: [B + 1] int32, offsets of the reports in the tokens, [CLS] and [SEP] included.
        cu_sentence_tokens: [S + 1] int32, offsets of the sentences in the tokens without [CLS] and [SEP].
        cu_sentences: [B + 1] int32, offsets of the reports in the sentences.
        max_tokens: tokens of the longest report.
        max_sentence_tokens: tokens of the longest sentence.
        max_sentences: sentences of the report with the most sentences.
        study_ids: [B] int64.
        image_rows: [B] int64, rows of the images in the prepared dataset.
        first_pair: position of this batch's first pair in the batch joined over all ranks.
        first_sentence: position of this batch's first sentence in the batch joined over all ranks.
        sentence_share: S * ranks / (sentences of the joined batch). A mean over sentences, times this and averaged
            over the ranks, is the mean over the joined batch; 1 in a single process. A tensor [] if the step is
            compiled.
        filler: extra tokens at the end that belong to no report, so that T + filler is one of few sizes.
    """

    images: Tensor
    token_ids: Tensor
    position_ids: Tensor
    cu_tokens: Tensor
    cu_sentence_tokens: Tensor
    cu_sentences: Tensor
    max_tokens: int
    max_sentence_tokens: int
    max_sentences: int
    study_ids: Tensor
    image_rows: Tensor
    first_pair: int = 0
    first_sentence: int = 0
    sentence_share: float | Tensor = 1.0
    filler: int = 0

    def __len__(self) -> int:
        return self.cu_tokens.shape[0] - 1

    @property
    def num_sentences(self) -> int:
        return self.cu_sentence_tokens.shape[0] - 1

    def sentence_token_rows(self) -> Tensor:
        """The rows of the tokens that belong to a sentence: all except each report's first and last: [T - 2B] int64."""
        tokens, reports = self.token_ids.shape[0] - self.filler, len(self)
        # Without [CLS] and [SEP] a report's offset is smaller by 2 for each report before it.
        lost = 2 * torch.arange(reports + 1, device=self.cu_tokens.device, dtype=self.cu_tokens.dtype)
        report = segment_ids(self.cu_tokens - lost, tokens - 2 * reports)
        return torch.arange(tokens - 2 * reports, device=self.cu_tokens.device) + 2 * report + 1

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "PackedBatch":
        """The same batch with every tensor on `device`."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        if torch.device(device).type == "cuda":
            # The host continues during a copy only if it is from page-locked memory.
            tensors = {name: tensor if tensor.is_cuda else tensor.pin_memory() for name, tensor in tensors.items()}
        return replace(self, **{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()})


@dataclass(frozen=True)
class PackedText:
    """The text of a `PackedBatch`, which documents the fields."""

    token_ids: Tensor
    position_ids: Tensor
    cu_tokens: Tensor
    cu_sentence_tokens: Tensor
    cu_sentences: Tensor
    max_tokens: int
    max_sentence_tokens: int
    max_sentences: int
    filler: int = 0

    def with_images(
        self,
        images: Tensor,
        study_ids: Tensor,
        image_rows: Tensor,
        first_pair: int = 0,
        first_sentence: int = 0,
        sentence_share: float = 1.0,
    ) -> PackedBatch:
        """The batch of these reports and their images."""
        # A field of this class has the same name there.
        return PackedBatch(
            images=images,
            study_ids=study_ids,
            image_rows=image_rows,
            first_pair=first_pair,
            first_sentence=first_sentence,
            sentence_share=sentence_share,
            **vars(self),
        )


def pack_reports(reports: Sequence[Sequence[np.ndarray]], cls_id: int, sep_id: int) -> PackedText:
    """Concatenate reports, each a sequence of sentences, each the int token ids of a sentence without special tokens.

    Raises:
        ValueError: a report has no sentence or a sentence has no token.
    """
    pieces: list[np.ndarray] = []
    tokens_of_report, sentences_of_report, tokens_of_sentence = [], [], []
    cls, sep = np.array([cls_id]), np.array([sep_id])
    for index, sentences in enumerate(reports):
        lengths = [len(sentence) for sentence in sentences]
        if not lengths or min(lengths) == 0:
            raise ValueError(f"reports[{index}] has no sentence, or a sentence without tokens")
        pieces += [cls, *sentences, sep]
        tokens_of_sentence += lengths
        sentences_of_report.append(len(lengths))
        tokens_of_report.append(sum(lengths) + 2)
    return PackedText(
        token_ids=torch.from_numpy(np.concatenate(pieces).astype(np.int64)),
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in tokens_of_report])),
        cu_tokens=_offsets(tokens_of_report),
        cu_sentence_tokens=_offsets(tokens_of_sentence),
        cu_sentences=_offsets(sentences_of_report),
        max_tokens=max(tokens_of_report),
        max_sentence_tokens=max(tokens_of_sentence),
        max_sentences=max(sentences_of_report),
    )


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
