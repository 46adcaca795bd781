"""PRIOR's head sample by sample: the supplement's (2.2, 2.3), with the released code's formulas.

Letters in shapes: B pairs, P patches, L padded tokens, k sentences of a report, S sentences of all reports, Q queries,
D channels.
"""

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.model.pooling import SentenceGather
from prior_fast.model.prior import PRIORModel

from .encoders import attend_all


def wide(x: Tensor) -> Tensor:
    """x, converted to float32 if its dtype is narrower."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def pool_sentences(gather: SentenceGather, tokens: Tensor, values: Tensor, index: Tensor) -> list[Tensor]:
    """The sentences [k, C] of each report, pooled one by one (supplement 2.2).

    The weights are computed from tokens [B, L, C], and values [B, L, C'] are summed. index [B, L] is the sentence of
    each token, -1 for none.
    """
    reports = []
    for i in range(tokens.shape[0]):
        sentences = []
        for number in range(int(index[i].max().item()) + 1):
            here = index[i] == number
            rows = values[i][here]
            if gather.pool == "mean":
                sentences.append(rows.mean(dim=0))
                continue
            query, key = gather.projections(tokens[i][here])
            scores = query @ key.sum(dim=0)
            sentences.append(torch.softmax(scores, dim=0) @ rows)
        reports.append(torch.stack(sentences))
    return reports


def pool_reports(model: PRIORModel, reports: list[Tensor], tracked: bool = True) -> Tensor:
    """Each report's sentences [k, D] -> all reports [B, D]: attention of the mean and all sentences, padded.

    tracked: whether training updates the projection's running statistics with these reports.
    """
    rows = pad_sequence([torch.cat([x.mean(dim=0, keepdim=True), x]) for x in reports], batch_first=True)
    mask = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
    for i in range(len(reports)):
        mask[i, : len(reports[i]) + 1] = True
    return model.global_text_projection(attend_all(model.global_text_attention, rows, mask)[:, 0], tracked)


def contrast(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE [] of the rows of a and b [N, D]."""
    logits = scale * F.normalize(wide(a), dim=-1) @ F.normalize(wide(b), dim=-1).T
    labels = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def align_locally(model: PRIORModel, patches: Tensor, reports: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The local image loss [], the local text loss [], and the context of each patch from its report [B, P, D]."""
    image_losses, text_losses, contexts = [], [], []
    for i in range(len(reports)):
        image, text = patches[i], reports[i]
        for_image, for_text = cross_attention(model.local_cross_attention, image, text)
        image_losses.append(simsiam(image, for_image, model.predictor))
        text_losses.append(contrast(text, for_text, model.local_logit_scale.exp()))
        contexts.append(for_image)
    return torch.stack(image_losses).mean(), torch.stack(text_losses).mean(), torch.stack(contexts)


def align_attention(model: PRIORModel, patches: Tensor, reports: list[Tensor]) -> Tensor:
    """The loss [] of choosing each sentence's own image by its mean attention weight, mean over the sentences."""
    attention, losses = model.local_cross_attention, []
    scale = 1 / math.sqrt(patches.shape[-1])
    for i in range(len(reports)):
        query2, key2, _ = attention.text(reports[i])
        means = []
        for image in patches:
            query1, key1, _ = attention.image(image)
            weights = torch.sigmoid(wide(query2 @ key1.T * scale)) + torch.sigmoid(wide(key2 @ query1.T * scale))
            means.append(weights.mean(dim=1) / 2)
        logits = torch.log(torch.stack(means, dim=1))
        losses.append(F.cross_entropy(logits, torch.full((len(logits),), i, device=logits.device), reduction="none"))
    return torch.cat(losses).mean()


def read_contexts(model: PRIORModel, patches: Tensor, reports: list[Tensor]) -> Tensor:
    """The context of each patch from its report [B, P, D], without the losses of `align_locally`."""
    pairs = zip(patches, reports, strict=True)
    return torch.stack([cross_attention(model.local_cross_attention, image, text)[0] for image, text in pairs])


def cross_attention(attention: LocalCrossAttention, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """image [P, D], text [k, D] -> the context of each patch from the text [P, D], of each sentence [k, D]."""
    scale = 1 / math.sqrt(image.shape[-1])
    query1, key1, value1 = attention.image(image)
    query2, key2, value2 = attention.text(text)
    text_scores, image_scores = query2 @ key1.T * scale, query1 @ key2.T * scale
    if attention.activation == "softmax":
        text_weights, image_weights = text_scores.softmax(dim=-1), image_scores.softmax(dim=-1)
    else:
        text_weights, image_weights = torch.sigmoid(text_scores), torch.sigmoid(image_scores)
    return image_weights @ value2, text_weights @ value1


def simsiam(a: Tensor, b: Tensor, predictor: nn.Module) -> Tensor:
    """Symmetric SimSiam [] of rows [P, D]."""
    there = F.cosine_similarity(predictor(a), b.detach(), dim=-1).mean()
    back = F.cosine_similarity(predictor(b), a.detach(), dim=-1).mean()
    return -(there + back) / 2


def read_bank(bank: Tensor, x: Tensor, tau: float | Tensor, gumbel: Tensor | None) -> tuple[Tensor, Tensor]:
    """Bank [K, D], sentences x [S, D] -> the lookup of each sentence [S, D], and its mean L1 distance from x []."""
    logits = x @ bank.T
    if gumbel is not None:
        logits = logits + gumbel
    output = torch.softmax(logits / tau, dim=-1) @ bank
    return output, (output - x).abs().mean()


def bank_kl(bank: Tensor, target: Tensor, prediction: Tensor) -> Tensor:
    """KL divergence [] of the distributions over the bank [K, D] of target and prediction [S, D]."""
    wanted, found = (torch.log_softmax(x @ bank.T, dim=-1) for x in (target, prediction))
    return (wanted.exp() * (wanted - found)).sum() / len(target)


def match(predicted: Tensor, reports: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Queries [B, Q, D] matched one to one with their reports' prototypes [k, D], padded with zeros to Q.

    Returns:
        The mean distance [] of matched pairs, and each report's queries in the order of its sentences [k, D].
    """
    distances, generated = [], []
    for i in range(len(reports)):
        k = len(reports[i])
        padded = torch.zeros_like(predicted[i], dtype=reports[i].dtype)
        padded[:k] = reports[i]
        cost = torch.cdist(wide(predicted[i]).detach(), wide(padded).detach(), p=1)
        _, columns = linear_sum_assignment(cost.cpu().numpy())
        order = torch.from_numpy(np.argsort(columns)).to(predicted.device)
        taken = predicted[i][order]
        distances.append(F.l1_loss(wide(taken), wide(padded)))
        generated.append(taken[:k])
    return torch.stack(distances).mean(), generated
