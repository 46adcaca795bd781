"""The image encoder: a ResNet with one input channel, its 7x7 map as tokens, and attention pooling.

Letters in shapes: B images, C channels of the last map, P = 49 tokens.
"""

from pathlib import Path, PurePosixPath
from typing import Literal, cast
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.config import ImageEncoderConfig
from prior_fast.console import busy
from prior_fast.console.download import check_answers, reason_of
from prior_fast.console.quiet import quiet_prints
from prior_fast.errors import UsageError
from prior_fast.model.max_pool import HalvingMaxPool2d
from prior_fast.model.rectified_norm import norm_relu, normalize
from prior_fast.model.stem_conv import StemConv2d
from prior_fast.model.weights import load_strictly, load_tensors

MAP_SIZE = 7  # of a 224x224 image
# Names in torchvision. The paper says "pretrained on ImageNet" (supplement 2.2). The torchvision of the released code
# has only V1. V2 comes from a newer training recipe, with a higher accuracy on ImageNet.
IMAGENET = {"imagenet": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}
EXPANSION = 4  # a block's output channels for each channel of its 3x3 convolution


def averaged(images: Tensor, size: int) -> Tensor:
    """Means over squares: [B, C, h, w] -> [B, C, h // size, w // size]."""
    if size == 1:
        return images
    height, width = images.shape[2:]
    narrow = images.dtype not in (torch.float32, torch.float64)
    if size > 2 or height % 2 or width % 2 or narrow or images.device.type != "cpu" or torch.compiler.is_compiling():
        return F.avg_pool2d(images, size)
    # The sums of torch's pooling, in its order. For 32 images of 224x224 in float32 its loop takes 5 to 7 ms and these
    # additions 1.5 ms (one core of a Xeon).
    top, bottom = images[:, :, ::2], images[:, :, 1::2]
    return (top[..., ::2] + top[..., 1::2] + bottom[..., ::2] + bottom[..., 1::2]).mul_(0.25)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 (with the stride) and 1x1 convolutions, with the names of torchvision's.

    The first block of a stage projects the residual.
    """

    def __init__(self, channels: int, planes: int, stride: int, project: bool) -> None:
        super().__init__()
        wide = planes * EXPANSION
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample: nn.Sequential | None = None
        if project:
            self.downsample = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] -> [B, 4 planes, h / stride, w / stride]."""
        y = norm_relu(self.bn1, self.conv1(x))
        y = norm_relu(self.bn2, self.conv2(y))
        y = self.conv3(y)
        if self.downsample is not None:
            convolution, norm = self.downsample
            x = normalize(cast(nn.BatchNorm2d, norm), convolution(x))
        return norm_relu(self.bn3, y, residual=x)


class ResNet(nn.Module):
    """torchvision's bottleneck ResNet without its classifier, for gray images and any width; same parameter names."""

    def __init__(self, depths: tuple[int, ...], width: int, shrink: int = 1) -> None:
        super().__init__()
        self.shrink = shrink
        self.conv1 = StemConv2d(width)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = HalvingMaxPool2d()
        self.out_channels = width
        for stage, depth in enumerate(depths):
            self.add_module(f"layer{stage + 1}", self._stage(width * 2**stage, depth, 1 if stage == 0 else 2))
        self.num_stages = len(depths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, planes: int, depth: int, stride: int) -> nn.Sequential:
        blocks = []
        for block in range(depth):
            blocks.append(Bottleneck(self.out_channels, planes, 1 if block else stride, project=not block))
            self.out_channels = planes * EXPANSION
        return nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, 224, 224] -> [B, C, 7, 7]."""
        x = self.maxpool(self.stem(averaged(images, self.shrink)))
        for stage in range(self.num_stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x

    def stem(self, images: Tensor) -> Tensor:
        """[B, 1, h, w] -> [B, width, h / 2, w / 2]."""
        return norm_relu(self.bn1, self.conv1(images))


class AttentionPool2d(nn.Module):
    """Attention pooling (supplement 2.2) of a map with its mean as the only query, as in CLIP (released)."""

    def __init__(self, map_size: int, channels: int, num_heads: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(map_size**2 + 1, channels) / channels**0.5)
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, channels)
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C]."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        # With one query, W_k is applied to the query and W_v to the weighted sum: to one row instead of all tokens.
        query = self.q_proj(x[:, 0]).unflatten(-1, (self.num_heads, -1))
        folded = torch.einsum("bhd,hdc->bhc", query, self._by_head(self.k_proj.weight))
        offset = torch.einsum("bhd,hd->bh", query, self._by_head(self.k_proj.bias))
        scores = (folded @ x.transpose(1, 2) + offset[:, :, None]) * query.shape[-1] ** -0.5
        tokens = torch.softmax(scores, dim=-1) @ x
        pooled = torch.einsum("bhc,hdc->bhd", tokens, self._by_head(self.v_proj.weight)).flatten(1)
        return self.c_proj(pooled + self.v_proj.bias)

    def _by_head(self, parameter: Tensor) -> Tensor:
        return parameter.unflatten(0, (self.num_heads, -1))


class ImageEncoder(nn.Module):
    """Images -> local tokens and one global vector (supplement 2.2).

    layout: "patches": token p is the C channels at position p. "released": the view of the released code, which mixes
        channels and positions; the published weights were presumably trained with it.
    """

    def __init__(self, config: ImageEncoderConfig, layout: Literal["patches", "released"]) -> None:
        super().__init__()
        self.layout = layout
        self.encoder = ResNet(config.depths, config.width, config.shrink)
        self.out_channels = self.encoder.out_channels
        self.atten_pool = AttentionPool2d(MAP_SIZE, self.out_channels, config.pool_heads)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, 224, 224] -> local [B, P, C], global [B, C]."""
        x = self.encoder(images)
        return map_to_tokens(x, self.layout), self.atten_pool(x)


def map_to_tokens(x: Tensor, layout: str) -> Tensor:
    """[B, C, h, w] -> [B, h w, C]."""
    if layout == "released":
        return x.reshape(x.shape[0], -1, x.shape[1])
    return x.flatten(2).transpose(1, 2)


def tokens_to_map(x: Tensor, layout: str) -> Tensor:
    """[B, P, C] -> [B, C, sqrt P, sqrt P]; the inverse of `map_to_tokens` for layout "patches"."""
    side = int(x.shape[1] ** 0.5)
    if layout == "released":
        return x.reshape(x.shape[0], x.shape[2], side, side)
    return x.transpose(1, 2).unflatten(2, (side, side))


def load_resnet_weights(encoder: ResNet, weights: str, argument: str = "model.image.weights") -> str:
    """Fill `encoder` from a name of `IMAGENET`, "random" or a file; returns one line that describes the weights.

    Three-channel stems are summed over the colours; a classifier (`fc.*`) is ignored.

    argument: the setting or option that holds `weights`, for messages.

    Raises:
        UsageError: the weights can't be loaded or do not fit.
    """
    if weights == "random":
        return "image encoder: random weights"
    if weights in IMAGENET:
        state = _imagenet(weights, argument)
    else:
        state = load_tensors(Path(weights), argument)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    stem = state.get("conv1.weight")
    if stem is not None and stem.shape[1] == 3:
        state["conv1.weight"] = stem.sum(dim=1, keepdim=True)
    joined = " " if argument.startswith("--") else "="
    load_strictly(encoder, state, f"{argument}{joined}{weights}")
    return f"image encoder: weights from {weights}"


def _imagenet(weights: str, argument: str) -> dict[str, Tensor]:
    """torchvision's state dict of a ResNet-50: from the cache of torch.hub, or downloaded.

    Raises:
        UsageError: the server does not answer, or the file is damaged.
    """
    # torchvision takes two seconds to load.
    from torchvision.models.resnet import ResNet50_Weights

    kind = ResNet50_Weights[IMAGENET[weights]]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(kind.url).path).name
    advice = f"give the path of a ResNet-50 state dict, or ask for {argument}=random"
    what = f"reading {cached.name}"
    try:
        if not cached.exists():
            size = check_answers(kind.url)
            what = f"downloading {kind.url}{f' ({size:.0f} MB)' if size else ''}"
        with busy(what), quiet_prints():
            return dict(kind.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True))
    except Exception as error:  # the network, and a damaged file, lead torch to errors of any type
        problem = f"could not be downloaded ({reason_of(error)}), and the cache {cached.parent} of TORCH_HOME has no "
        problem += f"{cached.name}: "
        if cached.exists():
            problem = f"can't be read ({reason_of(error)}): remove {cached} to download it again, "
        raise UsageError(f"{argument}={weights} {problem}{advice}") from None
