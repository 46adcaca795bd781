"""Reconstructing images from their masked embedding and any sentences, as the image decoder does in stage 3.

Letters in shapes: N images, P patches, D embedding width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.evaluation.encode import Advance, Encoder
from prior_fast.ops.common.philox import uniform

SIZE = 224  # pixels of a side of an image of a prepared dataset


def channel_masks(encoder: Encoder, count: int, seed: int) -> Tensor | None:
    """Factors [count, D] that mask each image's channels as in training; None if the model is trained without masks.

    They depend only on the seed and on the number of the image.
    """
    config = encoder.model.config
    if config.mask_ratio == 0:
        return None
    noise = uniform(seed, (count, config.embed_dim), device=encoder.device)
    return (noise >= config.mask_ratio).float() / (1 - config.mask_ratio)


@torch.inference_mode()
def reconstruct(
    encoder: Encoder,
    patches: Tensor,
    reports: Sequence[Sequence[str]],
    masks: Tensor | None = None,
    advance: Advance | None = None,
) -> np.ndarray:
    """Images from their patches [N, P, D] and the sentences of N reports: float32 [N, 224, 224], 0 black to 1 white.

    The encoder can't encode a report without sentences. The context of such a report is zero: the sum that sigmoid
    attention computes over no sentence.

    Smaller images of the decoder are enlarged bilinearly, as training reduces the image for its loss.

    masks: factors [N, D] for the channels of the image; None: all channels.
    """
    parts = []
    for first in range(0, len(reports), encoder.batch_size):
        part = slice(first, first + encoder.batch_size)
        context = contexts(encoder, patches[part], reports[part])
        mask = None if masks is None else masks[part]
        pixels = encoder.model.reconstruct_images(patches[part], context, mask).float()
        # A decoder of fewer blocks makes smaller images.
        pixels = F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", align_corners=True)[:, 0]
        gray = pixels * encoder.checkpoint.image_std + encoder.checkpoint.image_mean
        parts.append(gray.clamp(0, 1).cpu().numpy())
        if advance:
            advance(len(parts[-1]))
    return np.concatenate(parts)


def contexts(encoder: Encoder, patches: Tensor, reports: Sequence[Sequence[str]]) -> Tensor:
    """What the patches read from the reports' prototypes: [N, P, D]; zero for a report without sentences."""
    context = torch.zeros_like(patches)
    there = [index for index, report in enumerate(reports) if report]
    if there:
        texts = encoder.texts([reports[index] for index in there])
        longest = int(texts.cu_sentences.diff().max())
        attention = encoder.model.local_cross_attention
        context[there] = attention.for_image(patches[there], texts.prototypes, texts.cu_sentences, longest)
    return context
