"""The released code's attention pool of a sentence's tokens, for the order of operations of the model here."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prior_fast.errors import UsageError

_LAYERS = ("query", "key")


def folded(gather: Mapping[str, Tensor], projection: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `item_gather` that score unprojected tokens as the released pool scores projected ones.

    The released code projects each token to x' = P x + b and pools the x' by softmax(q'_i . sum_j k'_j), where
    q' = Q x' + c. The model here pools the x with q = (Q P) x + (Q b + c), which is the same q', and projects the
    result. The weights of a pool add up to 1, so the results are equal.

    gather: {query,key}.{weight,bias} with weight [D / 8, D]; projection: weight [D, H], bias [D].

    Returns:
        {query,key}.{weight,bias} with weight [H / 8, H]; rows of zeros fill up a wider H.

    Raises:
        UsageError: the tokens are narrower than the projected ones, or the tensors do not fit each other.
    """
    project, shift = projection["weight"].double(), projection["bias"].double()
    rows, found = project.shape[1] // 8, {}
    for name in _LAYERS:
        weight = gather[f"{name}.weight"]
        if weight.shape[1:] != project.shape[:1]:
            raise UsageError(
                f"item_gather.attention_pool.{name}.weight has shape {list(weight.shape)}, but "
                f"local_text_projection.weight {list(project.shape)}: the second number must be {project.shape[0]}"
            )
        if weight.shape[0] > rows:
            raise UsageError(
                f"item_gather.attention_pool.{name}.weight has {weight.shape[0]} rows: a pool over tokens of width "
                f"{project.shape[1]} can have at most {rows}"
            )
        full = torch.zeros(rows, project.shape[1], dtype=torch.float64)
        bias = torch.zeros(rows, dtype=torch.float64)
        full[: len(weight)] = weight.double() @ project
        bias[: len(weight)] = weight.double() @ shift + gather[f"{name}.bias"].double()
        found[f"{name}.weight"], found[f"{name}.bias"] = full.to(weight.dtype), bias.to(weight.dtype)
    return found
