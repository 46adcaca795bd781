"""PRIOR's score between images and texts, for all pairs at once: two softmaxes, summed (supplement 3.2).

The supplement's "local cross attention weight" is the mean of both directions, as in the released code.

Letters in shapes: N images, P patches, M texts, S sentences, D embedding width.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional as F

from prior_fast.evaluation.encode import Advance, EmbeddedImages, EmbeddedTexts, Encoder, Track
from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.model.prior import PRIORModel

# Attention weights of patches and sentences that are computed at once: 16 MiB in float32.
CHUNK = 2**22
# Images whose patches are in memory at once: 308 MB with the paper's model. All images of RSNA would take 4 GB.
IMAGES = 2048


class PairScores(NamedTuple):
    """The scores of all pairs, before any softmax.

    Attributes:
        whole: float64 [N, M], exp(logit scale) * cosine.
        local: float64 [N, M], the mean attention weight; zero if the model has no local score.
        scale: exp(logit scale).
    """

    whole: np.ndarray
    local: np.ndarray
    scale: float = 1.0

    def combined(self, axis: int, local_weight: float) -> np.ndarray:
        """softmax(whole) + local_weight * softmax(local), [N, M].

        axis: the candidates: 1 ranks texts for each image, 0 images for each text.
        """
        return softmax(self.whole, axis=axis) + local_weight * softmax(self.local, axis=axis)

    def part(self, rows: slice | np.ndarray, columns: slice | np.ndarray) -> "PairScores":
        """The scores of some images with some texts."""
        return PairScores(self.whole[rows][:, columns], self.local[rows][:, columns], self.scale)

    def pooled(self, owner: np.ndarray, how: str) -> "PairScores":
        """Both scores pooled over the texts of each class, by "mean" or "max": [N, C]; owner int64 [M]: the classes."""
        return PairScores(pool(self.whole, owner, how), pool(self.local, owner, how), self.scale)


def pool(scores: np.ndarray, owner: np.ndarray, how: str) -> np.ndarray:
    """The "mean" or "max" over the texts of each class: scores [N, M], owner int64 [M], each of 0..C-1 -> [N, C]."""
    groups = (scores[:, owner == number] for number in range(int(owner.max()) + 1))
    return np.stack([group.max(axis=1) if how == "max" else group.mean(axis=1) for group in groups], axis=1)


def gloria_scores(pairs: PairScores, owner: np.ndarray, how: str, local_weight: float) -> np.ndarray:
    """Class scores by the convention of GLoRIA (ICCV 2021) and BenchX (NeurIPS 2024): float64 [N, C].

    The weighted mean of the cosine and the local score is pooled over the prompts of each class, then standardized for
    each class over the images. A score is therefore relative to these images. A single image is not standardized.
    GLoRIA's local score compares words and regions; ours is PRIOR's, which compares sentences and patches.

    owner int64 [M]: the class of each prompt.
    """
    joined = pool((pairs.whole / pairs.scale + local_weight * pairs.local) / (1 + local_weight), owner, how)
    if len(joined) == 1:
        return joined
    deviation = joined.std(axis=0)
    return (joined - joined.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def score_images(
    encoder: Encoder, images: np.ndarray, rows: np.ndarray, texts: EmbeddedTexts, track: Track, at_once: int = IMAGES
) -> PairScores:
    """Encode rows int64 [N] of images uint8 [., 224, 224] and score them with the texts, `at_once` at a time."""
    encoding, scoring = track("images", len(rows)), track("scores", len(rows))
    parts = []
    for first in range(0, len(rows), at_once):
        encoded = encoder.images(images, rows[first : first + at_once], encoding)
        parts.append(pair_scores(encoder.model, encoded, texts, advance=scoring))
    whole, local = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    return PairScores(whole, local, parts[0].scale)


@torch.inference_mode()
def pair_scores(
    model: PRIORModel, images: EmbeddedImages, texts: EmbeddedTexts, chunk: int = CHUNK, advance: Advance | None = None
) -> PairScores:
    """The scores of every image with every text.

    chunk: attention weights computed at once; it limits the memory and affects nothing else.
    advance: gets the number of images after each chunk.
    """
    whole = F.normalize(images.whole.double(), dim=-1) @ F.normalize(texts.reports.double(), dim=-1).T
    if model.config.use_local_alignment:
        local = local_scores(
            model.local_cross_attention, images.patches, texts.prototypes, texts.cu_sentences, chunk, advance
        )
    else:
        local = torch.zeros_like(whole)
        if advance:
            advance(len(whole))
    scale = float(model.logit_scale.double().exp())
    return PairScores((scale * whole).cpu().numpy(), local.cpu().numpy(), scale)


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
    With softmax attention (the supplement's ablation) the mean of the weights is 1 / P in one direction and
    1 / sentences in the other, for every image. The score is then zero for all pairs.
    """
    count, texts = patches.shape[0], cu_sentences.shape[0] - 1
    lengths = cu_sentences.diff()
    total = torch.zeros(count, texts, dtype=torch.float64, device=patches.device)
    if attention.activation == "softmax":
        return total
    text_of_sentence = torch.repeat_interleave(torch.arange(texts, device=patches.device), lengths)
    query_text, key_text = attention.text(sentences, 2)
    scale = patches.shape[-1] ** -0.5
    images_at_once = min(count, max(1, chunk // (patches.shape[1] * sentences.shape[0])))
    sentences_at_once = max(1, chunk // (patches.shape[1] * images_at_once))
    for image in range(0, count, images_at_once):
        own = patches[image : image + images_at_once]
        query_image, key_image = attention.image(own.flatten(0, 1), 2)
        for sentence in range(0, sentences.shape[0], sentences_at_once):
            part = slice(sentence, sentence + sentences_at_once)
            weights = torch.sigmoid(scale * (key_image @ query_text[part].T))
            weights += torch.sigmoid(scale * (query_image @ key_text[part].T))
            means = weights.unflatten(0, (len(own), -1)).mean(dim=1, dtype=torch.float64) / 2
            total[image : image + images_at_once].index_add_(1, text_of_sentence[part], means)
        if advance:
            advance(len(own))
    return total / lengths
