"""One rank of the distributed test of info_nce: python info_nce_rank.py RANK RANKS FOLDER.

Reads FOLDER/inputs.npz, writes FOLDER/rank<RANK>.npz.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from prior_fast import ops


def main(rank: int, ranks: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    with np.load(folder / "inputs.npz", allow_pickle=False) as file:
        joined_a, joined_b, scale = (torch.from_numpy(file[name]) for name in ("a", "b", "scale"))
    a, b = (x.chunk(ranks)[rank].clone().requires_grad_() for x in (joined_a, joined_b))
    scale.requires_grad_()
    loss = ops.info_nce(a, b, scale, group=dist.group.WORLD)
    loss.backward()
    half = ops.info_nce(a.bfloat16(), b.bfloat16(), 10.0, group=dist.group.WORLD)
    try:
        ops.info_nce(joined_a[: rank + 1], joined_b[: rank + 1], 1.0, group=dist.group.WORLD)
        message = "no error"
    except ValueError as error:
        message = str(error)
    results = {"loss": loss, "half": half, "a": a.grad, "b": b.grad, "scale": scale.grad}
    for way, limit in (("kept", 1000), ("anew", 0)):
        importlib.import_module("prior_fast.ops.info_nce").KEPT_PRODUCTS = limit
        leaves = [x.detach().float().requires_grad_() for x in (a, b, scale)]
        loss = ops.info_nce(*leaves, group=dist.group.WORLD, backend="triton")
        loss.backward()
        results |= {f"{way}.loss": loss}
        results |= {f"{way}.{name}": x.grad for name, x in zip(("a", "b", "scale"), leaves, strict=True)}
    arrays = {name: value.detach().numpy() for name, value in results.items() if value is not None}
    np.savez(folder / f"rank{rank}.npz", message=np.array(message), **arrays)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
