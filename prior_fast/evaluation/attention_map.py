"""Where in an image a sentence's attention lies (supplement 4.2, figure 3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.model.prior import PRIOR


@torch.inference_mode()
def attention_maps(model: PRIOR, patches: Tensor, sentences: Tensor) -> Tensor:
    """The attention between each image and its own sentence, mean of both directions.

    patches [N, P, D], sentences [N, D] (prototypes, where the bank is used) -> float32 [N, sqrt P, sqrt P].
    """
    count, per_image = patches.shape[:2]
    each = torch.arange(count + 1, device=patches.device, dtype=torch.int32)
    over_patches, over_text = model.local_cross_attention.weights(patches, sentences, each, 1)
    maps = (over_patches[:, 0] + over_text[:, :, 0]) / 2
    side = int(per_image**0.5)
    return maps.float().unflatten(1, (side, side))


def typical_maps(model: PRIOR, patches: Tensor, sentences: Tensor) -> Tensor:
    """The mean over the images of each sentence's attention: what a sentence attends to whatever the image shows.

    patches [N, P, D], sentences [M, D] -> float32 [M, sqrt P, sqrt P].
    """
    maps = [attention_maps(model, patches, sentence.expand(len(patches), -1)).mean(dim=0) for sentence in sentences]
    return torch.stack(maps)


def upsample(maps: Tensor, size: int = 224) -> Tensor:
    """[N, h, w] -> [N, size, size], bilinear."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
