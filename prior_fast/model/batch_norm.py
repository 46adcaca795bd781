"""Batch normalization whose statistics are those of the batch joined over all ranks, on any device."""


import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.distributed import ProcessGroup


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """As torch.nn.SyncBatchNorm, which runs on GPUs only; every rank must hold as many images as the others."""

    group: ProcessGroup | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        if not self.training or self.group is None:
            return super().forward(x)
        ranks = torch.distributed.get_world_size(self.group)
        moments = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        moments = torch.distributed.nn.functional.all_reduce(moments, group=self.group) / ranks
        mean, variance = moments[0], moments[1] - moments[0].square()
        self._update_running(mean.detach(), variance.detach(), ranks * x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]

    def _update_running(self, mean: Tensor, variance: Tensor, count: int) -> None:
        momentum = self.momentum if self.momentum is not None else 0.1
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[operator, union-attr]
            self.running_mean.lerp_(mean, momentum)  # type: ignore[operator, union-attr]
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)  # type: ignore[operator, union-attr]


def join_batch_norms(module: nn.Module, group: ProcessGroup) -> nn.Module:
    """`module` with every BatchNorm2d replaced by one whose statistics span the ranks of `group`.

    Parameters and their names stay: torch's own SyncBatchNorm on GPUs, `JoinedBatchNorm2d` on the CPU.
    """
    if next(module.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module, group)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = JoinedBatchNorm2d
            child.group = group  # type: ignore[assignment]
    return module
