"""CUDA graphs of the parts of a compiled step; the host launches each graph by one call.

The number of sentences changes from batch to batch, so a whole step can't be recorded. Images always have the same
size, and so have the inputs of the decoders. The encoders and decoders are compiled separately and recorded, the text
encoder for a few numbers of tokens; in the graph of the step they are then opaque ops.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, count
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from prior_fast.batch import PackedBatch
from prior_fast.model.image_encoder import MAP_SIZE
from prior_fast.model.prior import PRIORModel
from prior_fast.training.batch_counters import uncounted
from prior_fast.training.narrow_weights import NarrowCopies, WithWeights, narrowed, product_weights
from prior_fast.training.recorded import Function, Recorded, recordings, replay_forward
from prior_fast.training.recorded_text import ReplayedText


class Parts:
    """The recorded parts of the steps of a stage, for batches of the size of `batch`.

    Make them within autocast if the step runs within autocast. The random generators are restored: the noise of a step
    depends only on its number, and not on whether it is the first step of a process.

    longest: tokens of the longest report of any batch. That of one batch would be a constant of the recording.
    with_copies: whether products use copies of their weights, which the optimizer keeps up to date.

    Attributes:
        copies: these copies; None without them, or without autocast.
        whole: the image encoder, and the decoders of images and sentences in stages that reconstruct.
        text: the text encoder; None without autocast, where attention pads the reports.
    """

    def __init__(
        self,
        model: PRIORModel,
        stage: int,
        batch: PackedBatch,
        device: torch.device,
        longest: int,
        with_copies: bool = False,
    ) -> None:
        half = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if half else next(model.image_decoder.parameters()).dtype
        # No cache: low-precision weights in it would become part of the recording, and outdated after the first step.
        context = torch.autocast(device.type, dtype, enabled=half, cache_enabled=False)
        self.copies = NarrowCopies(dtype) if half and with_copies else None
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            inputs = example_inputs(model, stage, batch, device, dtype)
            narrow = dtype if half else None
            self.whole = [Replayed(name, module, own, context, narrow, self.copies) for name, module, own in inputs]
        self.text: ReplayedText | None = None
        if half:
            name = free_name("text_encoder")
            own = Weights(model.text_encoder, dtype, self.copies)
            text = compiled_text(model, own, longest)
            self.text = ReplayedText(name, model.text_encoder, text, len(batch), longest, context, device, own.trained)

    def prepare(self, batch: PackedBatch) -> PackedBatch:
        """The batch as the recordings need it."""
        if self.copies is not None:
            self.copies.refresh()
        return batch if self.text is None else self.text.prepare(batch)

    @property
    def names(self) -> list[str]:
        """The names of all parts."""
        return [part.name for part in self.whole] + ([] if self.text is None else [self.text.name])

    def close(self) -> None:
        """Restore the modules and release all memory."""
        for part in self.whole:
            part.close()
        if self.text is not None:
            self.text.close()


def example_inputs(
    model: PRIORModel, stage: int, batch: PackedBatch, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, nn.Module, list[Tensor]]]:
    """The parts of fixed size that `stage` trains: name, module, and inputs in the dtype and layout of its first op."""
    images = torch.randn_like(batch.images, memory_format=torch.channels_last)
    yield f"image_encoder_{stage}", model.image_encoder, [images]
    if not model.config.reconstructs(stage):
        return
    pairs, width = len(batch), model.config.embed_dim
    maps = [
        torch.randn(pairs, width, MAP_SIZE, MAP_SIZE, device=device, dtype=dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for _ in range(2)
    ]
    yield "image_decoder", model.image_decoder, maps
    patches = torch.randn(pairs, MAP_SIZE**2, width, device=device, dtype=dtype, requires_grad=True)
    yield "sentence_decoder", model.sentence_decoder, [patches]


class Weights:
    """The weights that a recorded module multiplies with.

    narrow: autocast's dtype; None without autocast.
    copies: the copies of weights that are used in their place, if any.

    Attributes:
        names: of the weights that are narrow.
        trained: what gets the gradients: the trained parameters, or the copies in their place.
    """

    def __init__(self, module: nn.Module, narrow: torch.dtype | None, copies: NarrowCopies | None = None) -> None:
        weights = product_weights(module) if narrow else {}
        self.narrow, self.weights = narrow, tuple(weights.values())
        self.names = tuple(weights)
        own = copies.of(weights) if copies is not None else {}
        self.copies = tuple(own.values())
        self.trained = [own.get(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def ready(self) -> tuple[Tensor, ...]:
        """The narrow weights, in the order of the names."""
        if self.copies or self.narrow is None:
            return self.copies
        return narrowed(self.weights, self.narrow)


def compiled_text(model: PRIORModel, weights: Weights, longest: int) -> Function:
    """token_ids, position_ids, cu_tokens -> (token features,), for any number of tokens in reports up to `longest`."""
    compiled = torch.compile(WithWeights(model.text_encoder, weights.names).run, dynamic=True)

    def function(token_ids: Tensor, position_ids: Tensor, cu_tokens: Tensor) -> Sequence[Tensor]:
        torch._dynamo.mark_static(cu_tokens)
        return (compiled(weights.ready(), token_ids, position_ids, cu_tokens, longest),)

    return function


def free_name(name: str) -> str:
    """`name`, with a number if there are recordings of this name."""
    return next(own for own in chain([name], (f"{name}_{n}" for n in count(2))) if own not in recordings)


class Replayed:
    """Makes calls of `module` in a compiled step replay its recording. Other calls, or other sizes, run the module.

    name: name of the recording, which is part of the step's graph; a number is added if the name is taken.
    narrow, copies: see `Weights`.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        inputs: Sequence[Tensor],
        context: AbstractContextManager,
        narrow: torch.dtype | None = None,
        copies: NarrowCopies | None = None,
    ) -> None:
        name = free_name(name)
        plain = type(module).forward
        weights = Weights(module, narrow, copies)
        trained = weights.trained
        compiled = torch.compile(WithWeights(module, weights.names).run, dynamic=False)

        def function(*own: Tensor) -> Sequence[Tensor]:
            with uncounted(module):
                found = compiled(weights.ready(), *own)
            return (found,) if isinstance(found, Tensor) else found

        self.name, self.module = name, module
        with uncounted(module) as counters:
            buffers = [*module.buffers()]  # those that the function changes
        self.recorded = Recorded(function, inputs, trained, buffers, context, counters=counters)
        recordings[name] = self.recorded
        sizes = [x.shape for x in inputs]
        dtypes = [x.dtype for x in inputs]
        single = len(self.recorded.outputs) == 1

        def forward(this: nn.Module, *own: Tensor) -> Any:
            recorded = torch.is_grad_enabled() and this.training and [x.shape for x in own] == sizes
            if not (recorded and this is module and torch.compiler.is_compiling()):
                return plain(this, *own)
            fitting = [x.to(dtype) for x, dtype in zip(own, dtypes)]
            outputs = replay_forward(name, fitting, trained)
            return outputs[0] if single else tuple(outputs)

        # Copying the module binds this method to the copy, which was not recorded: hence `this is module` above.
        module.forward = MethodType(forward, module)

    def close(self) -> None:
        """Restore the module's own forward pass and release the recording's memory."""
        vars(self.module).pop("forward", None)
        recordings.pop(self.name, None)
        self.recorded.close()
