"""The losses of PRIOR against numbers recorded from the authors' own modules: golden files 2, 3 and 8."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.local_alignment import LocalCrossAttention, SimSiamPredictor
from prior_fast.model.prior import PRIORModel
from prior_fast.model.prototypes import SentencePrototypeBank
from prior_fast.ops.match_prototypes import match_prototypes
from prior_fast.training.stages import StepContext, attend, gather_matched, global_alignment, local_alignment

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
Gradients = Callable[[nn.Module], dict[str, Tensor]]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def load(golden: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(golden / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def leaf(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.tensor(array, dtype=dtype, requires_grad=True)


def assert_close(actual: Tensor | None, expected: np.ndarray, dtype: torch.dtype) -> None:
    want = torch.tensor(expected, dtype=torch.float64)
    got = torch.zeros_like(want) if actual is None else actual.detach().double().view(want.shape)
    assert (got - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()


def offsets(lengths: np.ndarray) -> Tensor:
    return torch.tensor(np.concatenate([[0], np.cumsum(lengths)]), dtype=torch.int32)


@DTYPES
@pytest.mark.parametrize("case", ["t07", "t01"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_local_alignment(golden: Path, case: str, side: str, dtype: torch.dtype, gradients_by_name: Gradients) -> None:
    data = load(golden, "local_alignment")
    attention, predictor = LocalCrossAttention(64).to(dtype), SimSiamPredictor(64).to(dtype)
    attention.load_state_dict({k[7:]: torch.tensor(v) for k, v in data.items() if k.startswith("p.attn.")})
    predictor.load_state_dict({k[7:]: torch.tensor(v) for k, v in data.items() if k.startswith("p.pred.")})
    scale = leaf(data[f"{case}.local_logit_scale"], dtype)
    model = cast(
        PRIORModel,
        SimpleNamespace(
            local_cross_attention=attention,
            predictor=predictor,
            local_logit_scale=scale,
            config=SimpleNamespace(use_local_alignment=True),
        ),
    )
    image, text = leaf(data["image"], dtype), leaf(data["text"], dtype)
    lengths = data["lengths"]
    batch = cast(Any, SimpleNamespace(cu_sentences=offsets(lengths), max_sentences=int(lengths.max())))
    context = attend(model, batch, image, text)
    terms = local_alignment(model, batch, image, text, **context)
    assert_close(context["for_image"], data["t07.text_to_local_image_embed"], dtype)
    loss = terms[f"local_{side}"]
    assert loss.item() == pytest.approx(data[f"{case}.local_{side}_loss_f64"].item(), rel=TOLERANCE[dtype])
    if side == "image" and case == "t01":
        return  # the image loss does not depend on the scale; its gradients are recorded once
    loss.backward()
    prefix = f"{case}.g_{side}loss."
    assert_close(image.grad, data[f"{prefix}image"], dtype)
    assert_close(text.grad, data[f"{prefix}text"], dtype)
    for module, name in ((attention, "attn"), (predictor, "pred")):
        for key, gradient in gradients_by_name(module).items():
            assert_close(gradient, data[f"{prefix}p.{name}.{key}"], dtype)
    assert_close(scale.grad, data[f"{prefix}local_logit_scale"], dtype)


@DTYPES
def test_global_alignment(golden: Path, dtype: torch.dtype) -> None:
    data = load(golden, "global_alignment")
    image, text, scale = (leaf(data[name], dtype) for name in ("image", "text", "logit_scale"))
    loss = global_alignment(cast(PRIORModel, SimpleNamespace(logit_scale=scale)), image, text, StepContext(1.0))
    assert loss.item() == pytest.approx(data["loss_f64"].item(), rel=TOLERANCE[dtype])
    loss.backward()
    for name, x in (("image", image), ("text", text), ("logit_scale", scale)):
        assert_close(x.grad, data[f"g.{name}"], dtype)


def test_prototype_generation_with_the_consistent_matching(golden: Path) -> None:
    data = load(golden, "spg_loss")
    lengths = data["lengths"]
    cu = offsets(lengths)
    predicted = torch.tensor(data["logits"], dtype=torch.float64)
    prototypes = torch.cat([torch.tensor(p[:n], dtype=torch.float64) for p, n in zip(data["protos"], lengths)])
    target, query = gather_matched(match_prototypes(predicted, prototypes, cu), cu, prototypes)
    loss = float(data["lambda_proto"]) * F.l1_loss(predicted, target)
    assert loss.item() == pytest.approx(data["spg_loss_consistent_f64"].item(), rel=1e-5)
    bank = SentencePrototypeBank(128, 64, "gaussian").double()
    bank.embed.weight.data = torch.tensor(data["p.embed.weight"], dtype=torch.float64)
    kl = bank.kl(torch.tensor(data["features"], dtype=torch.float64), predicted.flatten(0, 1)[query])
    assert kl.item() == pytest.approx(data["kl_loss_consistent_f64"].item(), rel=1e-5)
    # Every real prototype is taken once, and by a query of its own report.
    assert torch.equal(query // 16, torch.repeat_interleave(torch.arange(4), torch.tensor(lengths)))
    assert query.unique().numel() == len(query)
