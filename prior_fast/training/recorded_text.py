"""CUDA graphs of the text encoder, one for each of few numbers of tokens.

A batch's tokens are filled up to a multiple of BUCKET. The tokens of 128 reports differ by a few hundred from batch to
batch, so that a run needs a handful of recordings. They share one memory pool.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.batch import FILLERS, PackedBatch
from prior_fast.training.recorded import Recorded, recordings, replay_forward

BUCKET = 512  # tokens; on average half of it is filler, 2% of the tokens of 128 reports
MOST = 12  # recordings that are kept; each holds the gradients of the text encoder


def filled(batch: PackedBatch, bucket: int = BUCKET) -> PackedBatch:
    """The batch with more filler, so that its tokens are a multiple of `bucket`; the filler is at least FILLERS."""
    rows = batch.token_ids.shape[0]
    # At least as many as there are segments of filler. 0 or 1 would also make torch.compile trace the step again.
    more = FILLERS + -(rows + FILLERS) % bucket
    return replace(
        batch,
        token_ids=F.pad(batch.token_ids, (0, more)),
        position_ids=F.pad(batch.position_ids, (0, more)),
        filler=batch.filler + more,
    )


class TextRecordings:
    """A recording for each number of tokens.

    record: makes the recording for a number of tokens.
    """

    def __init__(self, record: Callable[[int], Recorded]) -> None:
        self.record = record
        self.by_tokens: dict[int, Recorded] = {}  # the last used comes last
        self.current: Recorded | None = None
        self.wants = [False, False, False]
        self.counters: Sequence[Tensor] = ()

    def prepare(self, tokens: int) -> None:
        """Make the recording for so many tokens, unless it is there. If there are too many, the oldest goes."""
        found = self.by_tokens.pop(tokens, None)
        if found is None:
            if len(self.by_tokens) == MOST:
                self.by_tokens.pop(next(iter(self.by_tokens))).close()
            found = self.record(tokens)
        self.by_tokens[tokens] = found

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Replay the forward pass for the number of tokens of `inputs`."""
        self.current = self.by_tokens[len(inputs[0])]
        return self.current.forward(inputs)

    def backward(self, douts: Sequence[Tensor]) -> list[Tensor]:
        """Replay the backward pass of the last forward pass."""
        assert self.current is not None
        return self.current.backward(douts)

    def empty_outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Tensors like the outputs."""
        forms = next(iter(self.by_tokens.values())).output_forms
        return [inputs[0].new_empty(inputs[0].shape[0], *form.size[1:], dtype=form.dtype) for form in forms]

    def empty_gradients(self) -> list[Tensor]:
        """Tensors like the gradients; their sizes do not depend on the tokens."""
        return next(iter(self.by_tokens.values())).empty_gradients()

    def close(self) -> None:
        """Release all memory."""
        for recording in self.by_tokens.values():
            recording.close()
        self.by_tokens.clear()


class ReplayedText:
    """Makes calls of a text encoder in a compiled step replay a recording. Other calls run the module.

    name: of the recordings, part of the step's graph.
    function: token_ids, position_ids, cu_tokens -> (token features,), for any number of tokens.
    reports: of each batch.
    longest: tokens of the longest report that the recordings take.
    parameters: what gets a gradient; None: the trained parameters of the module.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        function: Callable[..., Sequence[Tensor]],
        reports: int,
        longest: int,
        context: AbstractContextManager,
        device: torch.device,
        parameters: Sequence[nn.Parameter] | None = None,
    ) -> None:
        self.name, self.module, self.longest, self.device = name, module, longest, device
        self.segments = reports + FILLERS
        if parameters is None:
            parameters = [p for p in module.parameters() if p.requires_grad]
        pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

        def record(tokens: int) -> Recorded:
            # The noise of a step depends only on its number, and not on whether it records.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                return Recorded(function, self._example(tokens), parameters, [], context, pool)

        self.recorded = TextRecordings(record)
        recordings[name] = self.recorded
        plain = type(module).forward

        def forward(this: nn.Module, token_ids: Tensor, position_ids: Tensor, cu_tokens: Tensor, most: int) -> Any:
            filled_up = cu_tokens.shape[0] == self.segments + 1 and token_ids.shape[0] % BUCKET == 0
            replays = torch.is_grad_enabled() and this.training and torch.compiler.is_compiling()
            if not (filled_up and replays and this is module and most <= longest):
                return plain(this, token_ids, position_ids, cu_tokens, most)
            return replay_forward(name, [token_ids, position_ids, cu_tokens], parameters)[0]

        module.forward = MethodType(forward, module)

    def prepare(self, batch: PackedBatch) -> PackedBatch:
        """Fill up the batch, and record what its step will replay. Batches of another size stay as they are."""
        if len(batch) + FILLERS != self.segments or batch.max_tokens > self.longest:
            return batch
        batch = filled(batch)
        self.recorded.prepare(len(batch.token_ids))
        return batch

    def _example(self, tokens: int) -> list[Tensor]:
        """Inputs of `function` for a recording: segments of equal lengths."""
        offsets = torch.arange(self.segments + 1, device=self.device) * tokens // self.segments
        ids, positions = torch.zeros(2, tokens, dtype=torch.int64, device=self.device)
        return [ids, positions, offsets.int()]

    def close(self) -> None:
        """Restore the module's own forward pass and release the recordings' memory."""
        vars(self.module).pop("forward", None)
        recordings.pop(self.name, None)
        self.recorded.close()
