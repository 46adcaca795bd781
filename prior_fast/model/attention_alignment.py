"""Attention alignment, an addition of ours: a sentence's attention is greater over its own image than over others.

The paper's local losses leave sign and place of the attention open. The value projection can reverse the sign, and a
context can be read from any patch, because each patch sees its surroundings.
Letters in shapes: B pairs, P patches of an image, S sentences, D embedding width.
"""

from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from prior_fast.model.exchange import Exchange
from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.model.precision import widen
from prior_fast.ops.common.segments import segment_ids


class _OfAllRanks(torch.autograd.Function):
    """The rows of all ranks in the order of ranks. A rank's rows get the gradients from all ranks, summed.

    torch's differentiable all-gather breaks torch.compile's graph.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup, exchange: Exchange | None) -> Tensor:
        ctx.group, ctx.exchange, ctx.rows = group, exchange, x.shape[0]
        if exchange is not None:
            return exchange.gather(x)
        gathered = x.new_empty(x.shape[0] * torch.distributed.get_world_size(group), *x.shape[1:])
        torch.distributed.all_gather_into_tensor(gathered, x.contiguous(), group=group)
        return gathered

    @staticmethod
    def backward(ctx: Any, dgathered: Tensor) -> tuple[Tensor, None, None]:
        total = dgathered.clone(memory_format=torch.contiguous_format)
        if ctx.exchange is not None:
            ctx.exchange.sum_(total)
        else:
            torch.distributed.all_reduce(total, group=ctx.group)
        first = torch.distributed.get_rank(ctx.group) * ctx.rows
        return total[first : first + ctx.rows].clone(), None, None


def attention_alignment(
    attention: LocalCrossAttention,
    image: Tensor,
    text: Tensor,
    cu_sentences: Tensor,
    group: ProcessGroup | None = None,
    exchange: Exchange | None = None,
) -> Tensor:
    """The cross-entropy [] of choosing a sentence's own image among those of the batch, mean over the sentences.

    The logits are the logarithms of the paper's local score (supplement 3.2), the mean attention weight over the
    patches and both directions. Sigmoid weights at small values are exponentials of the inner products. The score is
    then their log-sum-exp over the patches, whose gradient goes to the patches with the greatest weights.

    image [B, P, D], text [S, D], cu_sentences [B + 1].
    group: the process group whose images are joined; None for a single process.
    exchange: between the ranks of `group`, if they are processes of one machine.
    """
    own = segment_ids(cu_sentences, text.shape[0])
    logits = log_mean_weights(attention, image, text, group, exchange)
    if group is not None:
        own = own + torch.distributed.get_rank(group) * image.shape[0]
    return F.cross_entropy(logits, own.long())


def log_mean_weights(
    attention: LocalCrossAttention,
    image: Tensor,
    text: Tensor,
    group: ProcessGroup | None = None,
    exchange: Exchange | None = None,
) -> Tensor:
    """The logarithm of the mean attention weight of each sentence and image: [S, B]; with a group [S, ranks B]."""
    query1, key1 = attention.image(image, 2)
    query2, key2 = attention.text(text, 2)
    if group is not None:
        query1, key1 = (_OfAllRanks.apply(x, group, exchange) for x in (query1, key1))
    scale = image.shape[-1] ** -0.5
    # The smaller factor is scaled. Log-sigmoids and a log-sum-exp would be exact below -87 too, where float32 has no
    # sigmoid; on a CPU they take 2.6 times as long (39 instead of 15 ms for 540 sentences and 64 images, one thread).
    one, other = (
        torch.sigmoid(widen(rows * scale @ columns.flatten(0, 1).T)).unflatten(1, (-1, image.shape[1])).mean(dim=2)
        for rows, columns in ((query2, key1), (key2, query1))
    )
    mean = (one + other) / 2
    return torch.log(mean.clamp_min(torch.finfo(mean.dtype).tiny))
