"""ResNet's first convolution for gray images, in a form that is fast on GPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EIGHT = 8  # bfloat16 numbers in 16 bytes, the unit of loads for tensor cores


class StemConv2d(nn.Conv2d):
    """A 7x7 convolution of one channel, stride 2 and padding 3: [B, 1, h, w] -> [B, out, ceil(h / 2), ceil(w / 2)].

    Compiled on a GPU it is a 4x4 convolution, stride 1, with squares of 2x2 pixels as channels: a single channel leaves
    the tensor cores idle. At 224x224 and batch 128 forward and weight gradient take 0.48 ms instead of 1.39 ms (H200;
    bench/results/nvidia-h200/convolution-forms.json).
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__(1, out_channels, kernel_size=7, stride=2, padding=3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        even = images.shape[2] % 2 == images.shape[3] % 2 == 0
        if even and torch.compiler.is_compiling() and images.is_cuda:
            return self.compiled_forward(images)
        return super().forward(images)

    def compiled_forward(self, images: Tensor) -> Tensor:
        """The same function of images of even size in the form for GPUs, which torch.compile fuses."""
        # Add a row and a column of zero weights before the seven: the window then begins at an even pixel.
        weight = F.pad(self.weight, (1, 0, 1, 0))
        return F.conv2d(squares(F.pad(images, (4, 2, 4, 2))), squares(weight))


def squares(x: Tensor) -> Tensor:
    """[N, 1, 2h, 2w] -> [N, 8, h, w]: the pixels of each square of 2x2, then four zeros; the channels innermost."""
    cut = x.squeeze(1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [N, h, 2, w, 2]
    return F.pad(cut.transpose(2, 3).flatten(3), (0, EIGHT - 4)).permute(0, 3, 1, 2)
