"""The local alignment module: sigmoid cross-attention between image patches and sentences, and its two losses.

Letters in shapes: B pairs, P patches of an image, S sentences, D embedding width.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.joined_linear import JoinedLinear
from prior_fast.model.precision import widen
from prior_fast.ops.attention_weights import attention_weights
from prior_fast.ops.sigmoid_attention import sigmoid_attention


class LocalContext(NamedTuple):
    """Attention outputs: for_image [B, P, D], read from the text, and for_text [S, D], read from the image."""

    for_image: Tensor
    for_text: Tensor


class LocalCrossAttention(nn.Module):
    """Attention in both directions, with one head and separate projections; 1 is the image side, 2 the text side."""

    image: JoinedLinear
    text: JoinedLinear

    def __init__(self, channels: int, activation: Literal["sigmoid", "softmax"] = "sigmoid", bias: float = 0.0) -> None:
        """bias: of the logits at the start, negative or 0; held by the biases of queries and keys."""
        super().__init__()
        # Each side is projected by one product.
        for number, side in ((1, "image"), (2, "text")):
            names = (f"query{number}", f"key{number}", f"value{number}")
            JoinedLinear(channels, channels, names).register(self, side)
        self.activation: Literal["sigmoid", "softmax"] = activation
        if bias:
            # The scaled product of the two constants is the bias.
            constant = (-bias * channels**-0.5) ** 0.5
            with torch.no_grad():
                for joined in (self.image, self.text):
                    joined.bias[:channels] = constant  # of the queries
                    joined.bias[channels : 2 * channels] = -constant  # of the keys

    def forward(self, image: Tensor, text: Tensor, cu_sentences: Tensor, max_sentences: int) -> LocalContext:
        """image [B, P, D], text [S, D], cu_sentences [B + 1]."""
        patches, cu_patches, per_image = flatten_patches(image)
        query1, key1, value1 = self.image(patches[:, None])
        query2, key2, value2 = self.text(text[:, None])
        for_text = sigmoid_attention(
            query2, key1, value1, cu_sentences, cu_patches, max_sentences, per_image, activation=self.activation
        )
        for_image = sigmoid_attention(
            query1, key2, value2, cu_patches, cu_sentences, per_image, max_sentences, activation=self.activation
        )
        return LocalContext(for_image[:, 0].unflatten(0, (-1, per_image)), for_text[:, 0])

    def for_image(self, image: Tensor, text: Tensor, cu_sentences: Tensor, max_sentences: int) -> Tensor:
        """Only `LocalContext.for_image` [B, P, D]; arguments as in `forward`.

        key1, value1 and query2 take no part in it. Their gradient is zero.
        """
        patches, cu_patches, per_image = flatten_patches(image)
        (query1,) = self.image(patches[:, None], 1)
        _, key2, value2 = self.text(text[:, None])
        for_image = sigmoid_attention(
            query1, key2, value2, cu_patches, cu_sentences, per_image, max_sentences, activation=self.activation
        )
        return for_image[:, 0].unflatten(0, (-1, per_image))

    def weights(self, image: Tensor, text: Tensor, cu_sentences: Tensor, max_sentences: int) -> tuple[Tensor, Tensor]:
        """Weights of sentences over patches [B, max_sentences, P], of patches over sentences [B, P, max_sentences]."""
        patches, cu_patches, per_image = flatten_patches(image)
        query1, key1 = self.image(patches[:, None], 2)
        query2, key2 = self.text(text[:, None], 2)
        text_over_image = attention_weights(
            query2, key1, cu_sentences, cu_patches, max_sentences, per_image, activation=self.activation
        )
        image_over_text = attention_weights(
            query1, key2, cu_patches, cu_sentences, per_image, max_sentences, activation=self.activation
        )
        return text_over_image[:, 0], image_over_text[:, 0]


def flatten_patches(image: Tensor) -> tuple[Tensor, Tensor, int]:
    """[B, P, D] -> packed [B P, D], offsets [B + 1] int32, P."""
    batch, patches = image.shape[:2]
    offsets = torch.arange(0, (batch + 1) * patches, patches, device=image.device, dtype=torch.int32)
    return image.flatten(0, 1), offsets, patches


class SimSiamPredictor(nn.Sequential):
    """D -> D / 2 -> D, shared by both sides of the local image loss.

    The first layer's weights start with a standard deviation of D^-0.5 (released).
    """

    def __init__(self, channels: int) -> None:
        first = nn.Linear(channels, channels // 2)
        nn.init.normal_(first.weight, std=channels**-0.5)
        super().__init__(first, nn.ReLU(), nn.Linear(channels // 2, channels))


def simsiam_loss(a: Tensor, b: Tensor, predictor: nn.Module) -> Tensor:
    """Symmetric SimSiam: -(mean cos(pred a, sg b) + mean cos(pred b, sg a)) / 2; a, b [..., D] -> [].

    The cosines are float32 for bfloat16 and float16 inputs.
    """
    towards_b = F.cosine_similarity(widen(predictor(a)), widen(b.detach()), dim=-1).mean()
    towards_a = F.cosine_similarity(widen(predictor(b)), widen(a.detach()), dim=-1).mean()
    return -(towards_a + towards_b) / 2
