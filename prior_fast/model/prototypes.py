"""The sentence prototype memory bank (supplement 2.3)."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prior_fast.config import BankConfig
from prior_fast.ops.prototype_kl import prototype_kl
from prior_fast.ops.prototype_lookup import PrototypeLookup, prototype_lookup


class SentencePrototypeBank(nn.Module):
    """K prototypes, read by a Gumbel-softmax over the inner products with a sentence (released).

    init: "gaussian_l1" draws from the standard Gaussian and divides by the L1 norm (supplement 2.3); "gaussian" does
        not normalize (released); "sentences" needs `set_prototypes` before the bank is trained.
    precision: of the products of a float32 bank on a GPU. "ieee" leaves the choice to the ops, which choose cuBLAS;
        "tf32x3" asks for the kernels, on tensor cores. On a CPU the reference serves, which multiplies exactly.
    """

    def __init__(
        self,
        prototypes: int,
        channels: int,
        init: Literal["gaussian_l1", "gaussian", "sentences"],
        precision: Literal["ieee", "tf32x3"] = "ieee",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.embed = nn.Embedding(prototypes, channels)
        if init == "gaussian_l1":
            with torch.no_grad():
                self.embed.weight.div_(self.embed.weight.abs().sum(dim=1, keepdim=True))

    @torch.no_grad()
    def set_prototypes(self, prototypes: Tensor) -> None:
        """Replace the prototypes by [K, C]."""
        self.embed.weight.copy_(prototypes)

    def forward(
        self, x: Tensor, tau: float | Tensor, seed: int | Tensor | None = None, first_row: int = 0
    ) -> PrototypeLookup:
        """x [S, C] -> mixtures [S, C], index [S], l1 []; without a seed there is no noise."""
        bank = self.embed.weight
        return prototype_lookup(x.to(bank.dtype), bank, tau, seed=seed, first_row=first_row, **self._products())

    def kl(self, target: Tensor, prediction: Tensor) -> Tensor:
        """KL divergence of the two query distributions over the bank, mean over rows: [S, C], [S, C] -> []."""
        dtype = self.embed.weight.dtype
        return prototype_kl(target.to(dtype), prediction.to(dtype), self.embed.weight, **self._products())

    def _products(self) -> dict[str, Any]:
        """The ops' keywords for the bank's precision."""
        bank = self.embed.weight
        if self.precision == "ieee" or not bank.is_cuda or bank.dtype != torch.float32:
            return {}
        return {"precision": self.precision, "backend": "triton"}


def temperature(config: BankConfig, progress: float) -> float:
    """tau at `progress` in [0, 1] of the bank's training (stages 2 and 3)."""
    if config.tau_decay == "fixed":
        return config.tau_start
    if config.tau_decay == "linear":
        return config.tau_start + (config.tau_end - config.tau_start) * progress
    return config.tau_start * math.exp(progress * math.log(config.tau_end / config.tau_start))
