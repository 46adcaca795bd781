"""The dtype in which BERT's residuals are stored, in plain layers and in the fused op; and the bank's setting."""

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from prior_fast.config import ModelConfig, SentenceDecoderConfig, TextEncoderConfig, from_dict, to_dict
from prior_fast.model import bert
from prior_fast.model.bert import AddAndNorm, Bert, BertStructure, Rows, attend_to_self, attend_within
from prior_fast.model.prior import PRIORModel
from prior_fast.model.prototypes import SentencePrototypeBank
from prior_fast.model.sentence_decoder import SentenceDecoder
from prior_fast.model.text_encoder import TextEncoder
from prior_fast.training.stages import STAGES, StepContext
from tests.model.residual_training import batches, config, make_model

SETTINGS = ("float32", "bfloat16")


@pytest.fixture(params=["plain", "fused"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Torch's layers; or the fused op, in Triton's interpreter."""
    if request.param == "fused":
        monkeypatch.setattr(bert, "fuses", lambda x, parameter: torch.is_autocast_enabled("cpu"))
        monkeypatch.setenv("PRIOR_FAST_BACKEND", "triton")
    return request.param


def make(residual: str) -> Bert:
    torch.manual_seed(0)
    model = Bert(BertStructure(24, 2, 3, 40, dropout=0.0, residual=residual), cross_attention=True)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def run(model: Bert, dtype: torch.dtype | None) -> list[Tensor]:
    """The output and every gradient, under autocast to `dtype`."""
    generator = torch.Generator().manual_seed(1)
    words, image, dout = (torch.randn(2, 5, 24, generator=generator) for _ in range(3))
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        out = model(words, attend_to_self, sources=image, attend_to_sources=attend_within)
    return [out.detach(), *torch.autograd.grad((out * dout).sum(), [*model.parameters()])]


def residuals(model: Bert, dtype: torch.dtype | None) -> set[torch.dtype]:
    """The dtypes of the residuals that the blocks read and write."""
    found: set[torch.dtype] = set()

    def look(_: object, inputs: tuple[Tensor, Rows], output: Rows) -> None:
        found.update((inputs[1].residual.dtype, output.residual.dtype))

    handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, AddAndNorm)]
    run(model, dtype)
    for handle in handles:
        handle.remove()
    return found


def test_the_stored_dtype(path: str) -> None:
    """float32 by default under autocast, on both paths; bfloat16 on request, and only where autocast has it."""
    assert residuals(make("float32"), torch.bfloat16) == {torch.float32}
    assert residuals(make("bfloat16"), torch.bfloat16) == {torch.bfloat16}
    assert residuals(make("bfloat16"), torch.float16) == {torch.float32}
    assert residuals(make("bfloat16"), None) == {torch.float32}


def test_the_result_has_one_dtype(path: str) -> None:
    assert {run(make(residual), torch.bfloat16)[0].dtype for residual in SETTINGS} == {torch.float32}


def test_without_autocast_nothing_changes() -> None:
    assert all(map(torch.equal, run(make("float32"), None), run(make("bfloat16"), None)))


def test_the_error_is_that_of_the_rounding(path: str) -> None:
    """Beside float32, the output and the gradients err at most three times as much as with float32 residuals."""
    truth, wide, narrow = run(make("float32"), None), *(run(make(residual), torch.bfloat16) for residual in SETTINGS)
    assert not torch.equal(wide[0], narrow[0])
    for one, other, true in zip(narrow, wide, truth, strict=True):
        error, yardstick = ((x - true).norm().item() for x in (one, other))
        assert error <= 3 * yardstick + 2.0**-8 * true.norm().item()


def test_both_paths_round_in_the_same_places() -> None:
    """A block of plain layers and of the fused op's reference: the sum in float32, one rounding of the result.

    Not the kernel: Triton's interpreter cuts float32 to bfloat16 where a GPU rounds.
    """
    torch.manual_seed(3)
    block = AddAndNorm(BertStructure(24, 1, 3, 40, dropout=0.0, residual="bfloat16"), 40)
    torch.nn.init.zeros_(block.dense.bias)  # the fused op adds it in float32, a linear layer before its rounding
    x, residual = torch.randn(64, 40).bfloat16(), (3 * torch.randn(64, 24)).bfloat16()
    results = []
    for fused in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            y = block(x, Rows(residual, residual, fused))
        assert y.residual.dtype == torch.bfloat16 and y.operand is y.residual
        results.append(y.residual)
    with torch.autocast("cpu", torch.bfloat16):
        product = torch.nn.functional.linear(x, block.dense.weight)
    exact = torch.nn.functional.layer_norm(product.double() + residual.double(), (24,), eps=1e-12)
    assert torch.equal(*results)
    for found in results:
        # One rounding to bfloat16, of a sum that is exact but for float32.
        assert ((found.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1e-6).all()


def test_compiles_to_one_graph() -> None:
    torch._dynamo.reset()
    model = make("bfloat16")
    compiled = torch.compile(
        partial(model, attend=attend_to_self, attend_to_sources=attend_within), fullgraph=True, backend="aot_eager"
    )
    words, image = torch.randn(2, 5, 24), torch.randn(2, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            compiled(words, sources=image),
            model(words, attend_to_self, sources=image, attend_to_sources=attend_within),
        )


def test_the_settings_reach_the_layers() -> None:
    small = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16}
    for residual in SETTINGS:
        text = TextEncoder(TextEncoderConfig(weights="random", residual=residual, **small), 50)
        decoder = SentenceDecoder(SentenceDecoderConfig(1, 2, 16, residual=residual), 16)
        assert text.encoder.structure.residual == decoder.decoder.structure.residual == residual


def test_states_and_older_structures() -> None:
    """The setting has no weights; a structure without it means float32."""
    one, other = (make(residual).state_dict() for residual in SETTINGS)
    assert {name: t.shape for name, t in one.items()} == {name: t.shape for name, t in other.items()}
    structure = to_dict(ModelConfig())
    del structure["text"]["residual"], structure["sentence_decoder"]["residual"], structure["bank"]["precision"]
    assert from_dict(ModelConfig, structure) == ModelConfig()
    assert ModelConfig().text.residual == ModelConfig().sentence_decoder.residual == "float32"


def test_the_losses_of_a_step_differ_by_the_rounding() -> None:
    """Every term of stage 3, from the same weights, batch and noise."""
    (batch,) = batches(1)
    terms = []
    for residual, autocast in (("float32", False), ("float32", True), ("bfloat16", True)):
        model = make_model(config(residual).model).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            terms.append(
                {name: term.item() for name, term in STAGES[3](model, batch, StepContext(0.5, seed=3)).items()}
            )
    exact, wide, narrow = terms
    for name in exact:
        # A rounding to bfloat16 is at most 2**-8 of a number; two text layers and a decoder layer have 7 residuals.
        assert abs(narrow[name] - wide[name]) <= 7 * 2.0**-8 * abs(exact[name]) + 2 * abs(wide[name] - exact[name]), (
            name
        )


def test_what_the_bank_asks_for() -> None:
    """On a GPU with a float32 bank the kernels; elsewhere nothing."""
    for precision, cuda, dtype, asks in (
        ("tf32x3", True, torch.float32, True),
        ("tf32x3", True, torch.bfloat16, False),
        ("tf32x3", False, torch.float32, False),
        ("ieee", True, torch.float32, False),
    ):
        bank: Any = SimpleNamespace(
            precision=precision, embed=SimpleNamespace(weight=SimpleNamespace(is_cuda=cuda, dtype=dtype))
        )
        wanted = {"precision": "tf32x3", "backend": "triton"} if asks else {}
        assert SentencePrototypeBank._products(bank) == wanted
    assert SentencePrototypeBank(4, 8, "gaussian", "tf32x3").kl(torch.ones(3, 8), torch.ones(3, 8)).item() == 0


def test_the_bank_has_its_setting() -> None:
    model = config("float32", "model.bank.precision=tf32x3").model
    assert PRIORModel(model, 50).sentence_bank.precision == "tf32x3"
    assert PRIORModel(dataclasses.replace(model, bank=ModelConfig().bank), 50).sentence_bank.precision == "ieee"
