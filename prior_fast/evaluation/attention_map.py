"""Where in an image a sentence's attention lies (supplement 4.2, figure 3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.model.prior import PRIORModel


@torch.inference_mode()
def directions(model: PRIORModel, patches: Tensor, sentences: Tensor) -> Tensor:
    """The attention between each image and its own sentence: of the sentence over the patches, and the other way.

    patches [N, P, D], sentences [N, D] (prototypes, where the bank is used) -> float32 [2, N, sqrt P, sqrt P].
    """
    count, per_image = patches.shape[:2]
    each = torch.arange(count + 1, device=patches.device, dtype=torch.int32)
    over_patches, over_text = model.local_cross_attention.weights(patches, sentences, each, 1)
    side = int(per_image**0.5)
    return torch.stack([over_patches[:, 0], over_text[:, :, 0]]).float().unflatten(2, (side, side))


def attention_maps(model: PRIORModel, patches: Tensor, sentences: Tensor) -> Tensor:
    """The mean of both directions: [N, sqrt P, sqrt P]; arguments as in `directions`."""
    return directions(model, patches, sentences).mean(dim=0)


def typical_maps(model: PRIORModel, patches: Tensor, sentences: Tensor) -> Tensor:
    """The mean over the images of each sentence's attention: what it attends to whatever an image shows.

    patches [N, P, D], sentences [M, D] -> float32 [2, M, sqrt P, sqrt P].
    """
    maps = [directions(model, patches, sentence.expand(len(patches), -1)).mean(dim=1) for sentence in sentences]
    return torch.stack(maps, dim=1)


def departure_maps(model: PRIORModel, patches: Tensor, sentences: Tensor, typical: Tensor) -> Tensor:
    """How far the attention departs from the typical one, summed over both directions: [N, sqrt P, sqrt P].

    Sigmoid weights are not normalized over the patches, so a part of them depends on the position alone, and the value
    projection can undo their sign: what an image's content does to them is their change, upwards or downwards.

    typical: [2, N, sqrt P, sqrt P], of each image's own sentence.
    """
    return (directions(model, patches, sentences) - typical).abs().sum(dim=0)


def upsample(maps: Tensor, size: int = 224) -> Tensor:
    """[N, h, w] -> [N, size, size], bilinear."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
