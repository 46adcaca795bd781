"""Packing the text of a batch from the dataset's tokens, on any device, without Python per sentence."""

import warnings

import numpy as np
import torch
from torch import Tensor

from prior_fast.batch import PackedText
from prior_fast.data.batch_plan import BatchPlan
from prior_fast.data.prepared_dataset import PreparedDataset


class TextStore:
    """All tokens of a prepared dataset on one device, and packing batches of them.

    device: where the tokens lie and batches are made; on a CPU the tokens stay mapped from their file.
    bucket: the tokens of a batch are filled up to a multiple of this many, so that few sizes occur; 0 leaves them.
    """

    def __init__(self, dataset: PreparedDataset, device: torch.device, bucket: int = 0) -> None:
        self.device = device
        self.bucket = bucket
        self.cls_id, self.sep_id = dataset.cls_id, dataset.sep_id
        self.sentence_offsets = dataset.sentence_offsets
        # Mapped files can't be written to, which torch warns of; nothing here writes.
        self.tokens = shared_tensor(dataset.tokens).to(device)

    def pack(self, plan: BatchPlan) -> PackedText:
        """The reports of a plan. Nothing is read back from the device."""
        reports, inner = len(plan.studies), int(plan.lengths.sum())
        cu_sentence_tokens = _offsets(plan.lengths)
        of_reports = np.diff(cu_sentence_tokens[plan.cu_sentences])
        cu_tokens = _offsets(of_reports + 2)
        total = inner + 2 * reports
        filler = -total % self.bucket if self.bucket else 0

        # Where each token is read, and where it goes: behind its report's [CLS], and all [CLS] and [SEP] before that.
        shift = self._repeat(self.sentence_offsets[plan.sentences] - cu_sentence_tokens[:-1], plan.lengths, inner)
        place = self._repeat(2 * np.arange(reports) + 1, of_reports, inner)
        count = torch.arange(total + filler, device=self.device)
        token_ids = torch.zeros(total + filler, dtype=torch.int64, device=self.device)
        offsets = self._copy(cu_tokens)
        # Assigned by index, a number would be copied from the host, which waits for that.
        token_ids.index_fill_(0, offsets[:-1], self.cls_id)
        token_ids.index_fill_(0, offsets[1:] - 1, self.sep_id)
        token_ids[count[:inner] + place] = self.tokens[count[:inner] + shift].long()
        position_ids = torch.zeros_like(token_ids)
        position_ids[:total] = count[:total] - self._repeat(cu_tokens[:-1], of_reports + 2, total)
        return PackedText(
            token_ids=token_ids,
            position_ids=position_ids,
            cu_tokens=offsets.int(),
            cu_sentence_tokens=self._copy(cu_sentence_tokens).int(),
            cu_sentences=self._copy(plan.cu_sentences).int(),
            max_tokens=int(of_reports.max()) + 2,
            max_sentence_tokens=int(plan.lengths.max()),
            max_sentences=int(np.diff(plan.cu_sentences).max()),
            filler=filler,
        )

    def _copy(self, values: np.ndarray) -> Tensor:
        return to_device(values, self.device)

    def _repeat(self, values: np.ndarray, times: np.ndarray, total: int) -> Tensor:
        return torch.repeat_interleave(self._copy(values), self._copy(times), output_size=total)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on `device`; the host does not wait for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def shared_tensor(values: np.ndarray) -> Tensor:
    """A tensor that shares the memory of an array which can't be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
