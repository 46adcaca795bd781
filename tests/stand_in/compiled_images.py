"""Compiles the stem of the image encoder and the end of the image decoder for a GPU, and prints facts about the code.

One line of JSON: `scattered`, kernels with atomic additions; `copied`, convolutions whose input or gradient is not in
channels-last layout; `convolutions`, their number, forward and backward.
"""

import json
import re

import stand_in_here  # noqa: F401
import torch
from convolutions import skip_convolutions
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code

from prior_fast.model.image_decoder import DecoderBlock, reconstruction_loss
from prior_fast.model.image_encoder import ResNet
from prior_fast.model.narrow_conv import NarrowConv2d


class Ends(nn.Module):
    """Images [B, 1, 64, 64] -> the loss of images [B, 1, 32, 32] made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet((1,), 16)
        self.block = DecoderBlock(64, 16, "after_relu")
        self.head = NarrowConv2d(16, 1, 3)

    def forward(self, images: Tensor, wanted: Tensor) -> Tensor:
        return reconstruction_loss(self.head(self.block(self.encoder(images))), wanted)


def strides(code: str, name: str) -> list[int]:
    """Strides of the buffer `name` in generated code."""
    made = re.search(rf"\b{name} = empty_strided_cuda\([^)]*\), \(([^)]*)\)", code)
    if made is None:  # reuses another buffer
        source = re.search(rf"\b{name} = (\w+); del", code)
        return strides(code, source.group(1)) if source else []
    return [int(word) for word in made.group(1).split(",") if word.strip()]


def main() -> None:
    skipped = skip_convolutions()  # noqa: F841 kept alive
    model = Ends().cuda().to(memory_format=torch.channels_last)
    images, wanted = (torch.zeros(8, 1, side, side, device="cuda") for side in (64, 32))

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.compile(model)(images, wanted)
        loss.backward()

    _, codes = run_and_get_code(step)
    calls = [(code, name) for code in codes for name in re.findall(r"convolution(?:_backward.default)?\((\w+),", code)]
    copied = [name for code, name in calls if (found := strides(code, name)) and found[1] not in (1, found[0])]
    print(json.dumps({
        "scattered": sum(code.count("tl.atomic_add") for code in codes),
        "copied": copied,
        "convolutions": len(calls),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
