"""PRIOR's score between images and texts (supplement 3.2), for all pairs at once.

Letters in shapes: N images, P patches, M texts, S sentences, D embedding width.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional as F

from prior_fast.evaluation.encode import Advance, EncodedImages, EncodedTexts
from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.model.prior import PRIOR

# Attention weights of patches and sentences computed at once: 16 MiB in float32.
CHUNK = 2**22


class PairScores(NamedTuple):
    """Of all pairs, before any softmax: whole, exp(logit scale) * cosine, and local, the mean attention weight.

    Both float64 [N, M].
    """

    whole: np.ndarray
    local: np.ndarray

    def combined(self, axis: int, local_weight: float) -> np.ndarray:
        """softmax(whole) + local_weight * softmax(local), [N, M].

        axis: the candidates: 1 ranks texts for each image, 0 images for each text.
        """
        return softmax(self.whole, axis=axis) + local_weight * softmax(self.local, axis=axis)


@torch.inference_mode()
def pair_scores(
    model: PRIOR, images: EncodedImages, texts: EncodedTexts, chunk: int = CHUNK, advance: Advance | None = None
) -> PairScores:
    """The scores of every image with every text.

    chunk: attention weights computed at once; bounds the memory and changes nothing else.
    advance: is told the number of images after each chunk.
    """
    whole = F.normalize(images.whole.double(), dim=-1) @ F.normalize(texts.reports.double(), dim=-1).T
    local = local_scores(
        model.local_cross_attention, images.patches, texts.prototypes, texts.cu_sentences, chunk, advance
    )
    return PairScores((model.logit_scale.double().exp() * whole).cpu().numpy(), local.cpu().numpy())


def local_scores(
    attention: LocalCrossAttention,
    patches: Tensor,
    sentences: Tensor,
    cu_sentences: Tensor,
    chunk: int = CHUNK,
    advance: Advance | None = None,
) -> Tensor:
    """Mean over patches, sentences of a text and both directions of the sigmoid attention weights: [N, M] float64.

    patches [N, P, D]; sentences [S, D]; cu_sentences [M + 1].
    With softmax attention (the supplement's ablation) the mean of the weights is 1 / P one way and 1 / sentences the
    other, whatever the image shows: the score is then zero for all pairs.
    """
    count, texts = patches.shape[0], cu_sentences.shape[0] - 1
    lengths = cu_sentences.diff()
    total = torch.zeros(count, texts, dtype=torch.float64, device=patches.device)
    if attention.activation == "softmax":
        return total
    text_of_sentence = torch.repeat_interleave(torch.arange(texts, device=patches.device), lengths)
    query1, key1, query2, key2 = (attention.get_submodule(name) for name in ("query1", "key1", "query2", "key2"))
    query_text, key_text = query2(sentences), key2(sentences)
    scale = patches.shape[-1] ** -0.5
    images_at_once = min(count, max(1, chunk // (patches.shape[1] * sentences.shape[0])))
    sentences_at_once = max(1, chunk // (patches.shape[1] * images_at_once))
    for image in range(0, count, images_at_once):
        own = patches[image : image + images_at_once]
        query_image, key_image = query1(own).flatten(0, 1), key1(own).flatten(0, 1)
        for sentence in range(0, sentences.shape[0], sentences_at_once):
            part = slice(sentence, sentence + sentences_at_once)
            weights = torch.sigmoid(scale * (key_image @ query_text[part].T))
            weights += torch.sigmoid(scale * (query_image @ key_text[part].T))
            means = weights.unflatten(0, (len(own), -1)).mean(dim=1, dtype=torch.float64) / 2
            total[image : image + images_at_once].index_add_(1, text_of_sentence[part], means)
        if advance:
            advance(len(own))
    return total / lengths
