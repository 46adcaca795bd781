"""Maps of a sentence's attention over an image (supplement 4.2, figure 3).

The supplement does not say which of the two directions it shows.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.model.prior import PRIORModel


@torch.inference_mode()
def directions(model: PRIORModel, patches: Tensor, sentences: Tensor) -> Tensor:
    """The attention between each image and its own sentence, in both directions: of the sentence over the patches, and
    of the patches over the sentence.

    patches [N, P, D], sentences [N, D] (prototypes, if the bank is used) -> float32 [2, N, sqrt P, sqrt P].
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
    """The mean of each sentence's attention over the images: the part that does not depend on the image.

    patches [N, P, D], sentences [M, D] -> float32 [2, M, sqrt P, sqrt P].
    """
    maps = [directions(model, patches, sentence.expand(len(patches), -1)).mean(dim=1) for sentence in sentences]
    return torch.stack(maps, dim=1)


def departure_maps(model: PRIORModel, patches: Tensor, sentences: Tensor, typical: Tensor) -> Tensor:
    """The departure of the attention from the typical maps, summed over both directions: [N, sqrt P, sqrt P].

    Sigmoid weights are not normalized over the patches, so a part of them depends only on the position. The value
    projection can reverse their sign. The effect of an image's content is therefore their change, up or down.

    typical: [2, N, sqrt P, sqrt P], the typical maps of each image's own sentence.
    """
    return (directions(model, patches, sentences) - typical).abs().sum(dim=0)


def upsample(maps: Tensor, size: int = 224) -> Tensor:
    """[N, h, w] -> [N, size, size], bilinear."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
