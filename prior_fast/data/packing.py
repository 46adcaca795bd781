"""Packing the text of a batch from the dataset's tokens, on any device, without a Python loop over sentences."""

import warnings

import numpy as np
import torch
from torch import Tensor

from prior_fast.batch import PackedText
from prior_fast.data.batch_plan import BatchPlan
from prior_fast.data.prepared_dataset import PreparedDataset


class TextStore:
    """Holds all tokens of a prepared dataset on one device, and packs batches of them.

    device: where the tokens are stored and batches are packed; on a CPU the tokens stay memory-mapped.
    bucket: the tokens of a batch are filled up to a multiple of this number, so that few sizes occur; 0 adds none.
    """

    def __init__(self, dataset: PreparedDataset, device: torch.device, bucket: int = 0) -> None:
        self.device = device
        self.bucket = bucket
        self.cls_id, self.sep_id = dataset.cls_id, dataset.sep_id
        self.sentence_offsets = dataset.sentence_offsets
        # torch warns that memory-mapped arrays are not writable; nothing here writes to them.
        self.tokens = shared_tensor(dataset.tokens).to(device)

    def pack(self, plan: BatchPlan) -> PackedText:
        """Pack the reports of a plan. Nothing is read back from the device."""
        reports, inner = len(plan.studies), int(plan.lengths.sum())
        cu_sentence_tokens = _offsets(plan.lengths)
        of_reports = np.diff(cu_sentence_tokens[plan.cu_sentences])
        cu_tokens = _offsets(of_reports + 2)
        total = inner + 2 * reports
        filler = -total % self.bucket if self.bucket else 0

        # Shifts from a token's number to where it is read and to where it is written. It is written after the [CLS] of
        # its report and after all [CLS] and [SEP] of the reports before.
        shift = self._repeat(self.sentence_offsets[plan.sentences] - cu_sentence_tokens[:-1], plan.lengths, inner)
        place = self._repeat(2 * np.arange(reports) + 1, of_reports, inner)
        count = torch.arange(total + filler, device=self.device)
        token_ids = torch.zeros(total + filler, dtype=torch.int64, device=self.device)
        offsets = self._copy(cu_tokens)
        # Assignment by index would copy the number from the host and wait for the copy.
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
    """A tensor that shares the memory of a read-only array."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
