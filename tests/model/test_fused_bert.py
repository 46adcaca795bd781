"""BERT with the fused ops, which serve on GPUs under autocast: here on a CPU, in Triton's interpreter."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from prior_fast.model import bert
from prior_fast.model.bert import Bert, BertStructure, attend_to_self, attend_within


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused ops serve under a CPU's autocast."""
    monkeypatch.setattr(bert, "fuses", lambda x, parameter: torch.is_autocast_enabled("cpu"))
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "triton")


def make(structure: BertStructure, cross_attention: bool = True) -> Bert:
    torch.manual_seed(0)
    model = Bert(structure, cross_attention=cross_attention)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def run(model: Bert, half: bool) -> list[Tensor]:
    """The output and every gradient, with or without autocast to bfloat16."""
    generator = torch.Generator().manual_seed(1)
    words, image, dout = (torch.randn(2, 5, 24, generator=generator) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = model(words, attend_to_self, sources=image, attend_to_sources=attend_within)
    return [out.detach(), *torch.autograd.grad((out * dout).sum(), [*model.parameters()])]


def test_errs_no_more_than_the_layers_it_replaces(fused: None) -> None:
    """The error against float32, beside that of torch's layers under autocast."""
    model = make(BertStructure(24, 2, 3, 40, dropout=0.0))
    ours, truth = run(model, True), run(model, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bert, "fuses", lambda x, parameter: False)
        plain = run(model, True)
    assert ours[0].dtype == torch.float32
    for one, other, true in zip(ours, plain, truth, strict=True):
        error, yardstick = ((x.float() - true).norm().item() for x in (one, other))
        assert error <= 2 * yardstick + 1e-3 * true.norm().item()


def test_dropout_follows_torchs_generator(fused: None) -> None:
    """A seed of torch decides the masks; layers, and two calls, have different ones; evaluation has none."""
    model = make(BertStructure(24, 2, 3, 40, dropout=0.4))
    torch.manual_seed(5)
    one, other = run(model, True), run(model, True)
    torch.manual_seed(5)
    again = run(model, True)
    assert all(map(torch.equal, one, again)) and not torch.equal(one[0], other[0])
    blocks = [module for module in model.modules() if isinstance(module, bert.AddAndNorm)]
    assert [block.stream for block in blocks] == list(range(6))
    model.eval()
    assert torch.equal(run(model, True)[0], run(model, True)[0])


def test_further_lengths_compile_nothing(fused: None) -> None:
    """A graph without a break, in training, whose masks are new in every call."""
    torch._dynamo.reset()
    model = make(BertStructure(24, 2, 3, 40, dropout=0.4), cross_attention=False)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(partial(model, attend=attend_to_self), fullgraph=True, backend=counter, dynamic=True)
    compiled_before = []
    with torch.autocast("cpu", torch.bfloat16):
        for rows in (5, 7, 12, 31):
            words = torch.randn(2, rows, 24)
            one, other = compiled(words), compiled(words)
            one.sum().backward()
            assert not torch.equal(one, other)
            compiled_before.append(counter.frame_count)
    assert compiled_before[1] == compiled_before[-1] <= 2


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("batch", "rows", "keys"), [(1, 1, 1), (3, 16, 49), (2, 5, 70)])
def test_packed_attention_serves_elements_of_a_batch(
    batch: int, rows: int, keys: int, causal: bool, fused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Self-attention and cross-attention of views, against torch's attention."""
    torch.manual_seed(rows)
    joined = torch.randn(batch, rows, 3 * 24).unflatten(-1, (3, 3, 8))
    query, sources = torch.randn(batch, rows, 3, 8), torch.randn(batch, keys, 2 * 24)
    key, value = (part.unflatten(-1, (3, 8)) for part in sources.split(24, dim=-1))
    leaves = [x.requires_grad_() for x in (joined, query, key, value)]

    def results() -> list[Tensor]:
        out = attend_to_self(joined, causal=causal), attend_within(query, key, value, causal=causal and rows == keys)
        return [*out, *torch.autograd.grad(sum(x.sin().sum() for x in out), leaves)]

    wanted = results()
    monkeypatch.setattr(bert, "attends_packed", lambda x: True)
    torch.testing.assert_close(results(), wanted, rtol=1e-4, atol=1e-5)
    torch.manual_seed(7)
    dropped, again = attend_to_self(joined, 0.5), attend_to_self(joined, 0.5)
    assert rows == 1 or not torch.equal(dropped, again)
    torch.manual_seed(7)
    assert torch.equal(attend_to_self(joined, 0.5), dropped)
    monkeypatch.undo()
    torch.testing.assert_close(attend_to_self(joined, causal=causal, packed=False), wanted[0])
