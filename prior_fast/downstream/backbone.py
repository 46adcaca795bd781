"""The pre-trained image encoder as a part of other networks."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from prior_fast.model.image_encoder import ImageEncoder, ResNet, averaged


class FeatureResNet(ResNet):
    """The encoder with the maps of all its stages as output. Parameters have the names of `ResNet` and torchvision.

    It is an encoder of depth 5 in the terms of segmentation_models_pytorch.

    Attributes:
        strides: 1, 2, 4, 8, 16, 32.
        feature_channels: channels of the map at each stride.
    """

    strides = (1, 2, 4, 8, 16, 32)

    def __init__(self, depths: tuple[int, ...], width: int, shrink: int = 1) -> None:
        super().__init__(depths, width, shrink)
        stages = [width * 2 ** (stage + 2) for stage in range(len(depths))]
        averaged = len(self.strides) - 2 - len(stages)
        self.feature_channels = (1, *(1 for _ in range(averaged)), width, *stages)

    @classmethod
    def from_encoder(cls, encoder: ImageEncoder, depths: tuple[int, ...], width: int, shrink: int) -> "FeatureResNet":
        """A copy of `encoder`, which must have these depths, width and shrink."""
        features = cls(depths, width, shrink)
        features.load_state_dict(encoder.encoder.state_dict())
        return features

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """[B, 1, H, W] -> the maps [B, C, H / stride, W / stride] at each stride.

        The first map is the image. If the encoder first averages images over 2x2 squares, the map at stride 2 is the
        averaged image, so that all six strides exist.
        """
        maps = [images]
        # Each map is computed from the image itself, so that rounding is as in `ResNet`.
        maps += [averaged(images, 2**halving) for halving in range(1, self.shrink.bit_length())]
        x = self.stem(maps[-1])
        maps.append(x)
        x = self.maxpool(x)
        for stage in range(self.num_stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            maps.append(x)
        return maps


def frozen_parts(encoder: ResNet, blocks: int) -> list[nn.Module]:
    """The encoder's modules that are not trained if only its last `blocks` stages are.

    The stem belongs to the first stage.
    """
    if blocks >= encoder.num_stages:
        return []
    stages: list[nn.Module] = [encoder.get_submodule(f"layer{i + 1}") for i in range(encoder.num_stages - blocks)]
    return [encoder.conv1, encoder.bn1, *stages]


def freeze(modules: Iterable[nn.Module]) -> None:
    """Disable the gradients of all parameters of the modules."""
    for module in modules:
        module.requires_grad_(False)


def train_except(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """Set training mode for the model and evaluation mode for frozen parts, which keeps their batch statistics."""
    model.train()
    for module in frozen:
        module.eval()


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that get a gradient, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
