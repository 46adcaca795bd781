"""The project's Adam under Triton's interpreter, beside torch's in float64."""

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prior_fast.kernels import adam
from prior_fast.kernels.common.launch import recording
from prior_fast.training.fused_adam import FusedAdam, in_same_order, is_one_piece
from prior_fast.training.narrow_weights import NarrowCopies
from prior_fast.training.optimizer_state import fill_optimizer, optimizer_tensors

SHAPES = [(3,), (1,), (), (0, 4), (128, 9), (adam.CHUNK + 5,), (adam.ADAM_BLOCK * 2,), (2, 3, 5, 7)]


def parameters(shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    found = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    if len(shapes[-1]) == 4:
        found[-1] = nn.Parameter(torch.randn(shapes[-1]).contiguous(memory_format=torch.channels_last))
    return found


def twins(own: Sequence[Tensor], kind: type, **settings: Any) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """The parameters in float64 and torch's optimizer of them."""
    wide = [nn.Parameter(x.detach().double()) for x in own]
    return wide, kind(wide, **settings)


def give(own: Sequence[Tensor], wide: Sequence[Tensor], scale: float = 1.0) -> None:
    """The same random gradients for both."""
    for x, other in zip(own, wide, strict=True):
        x.grad = torch.randn_like(x) * scale
        other.grad = x.grad.double()


def check(own: Sequence[Tensor], wide: Sequence[Tensor], tolerance: float = 2e-6) -> None:
    for x, other in zip(own, wide, strict=True):
        torch.testing.assert_close(x.detach().double(), other.detach(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "decoupled"), [(torch.optim.Adam, False), (torch.optim.AdamW, True)])
@pytest.mark.parametrize("clip", [0.0, 1.0, 1e6])
def test_updates_are_those_of_torch(kind: type, decoupled: bool, clip: float) -> None:
    # A gradient that its decay nearly cancels is a rounding, and a small eps would make a whole step of it.
    settings = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}
    own = parameters()
    wide, expected = twins(own, kind, **settings)
    optimizer = FusedAdam(own, decoupled=decoupled, **settings)
    for _ in range(4):
        give(own, wide)
        before = [x.grad.clone() for x in own]
        norm = optimizer.clipped_step(clip)
        wanted = torch.nn.utils.clip_grad_norm_(wide, clip or float("inf"))
        expected.step()
        assert norm.dtype == torch.float32 and norm.item() == pytest.approx(wanted.item(), rel=1e-6)
        check(own, wide)
        assert all(map(torch.equal, before, (x.grad for x in own)))  # not changed
    for x, other in zip(own, wide, strict=True):
        found, state = optimizer.state[x], expected.state[other]
        assert found["step"] == int(state["step"]) == 4
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(found[name].double(), state[name], rtol=1e-5, atol=1e-7)
            assert found[name].stride() == x.stride()


def test_step_does_not_clip() -> None:
    own = parameters([(300,)])
    wide, expected = twins(own, torch.optim.Adam)
    optimizer = FusedAdam(own)
    give(own, wide, 100.0)
    optimizer.step()
    expected.step()
    check(own, wide)


def test_groups_have_their_own_rates_and_rates_change() -> None:
    own = parameters([(40,), (50,), (60,)])
    groups = [{"params": own[:1], "lr": 1e-2}, {"params": own[1:], "lr": 1e-3, "betas": (0.5, 0.6)}]
    optimizer = FusedAdam(copy.copy(groups), weight_decay=0.3, decoupled=True)
    wide = [nn.Parameter(x.detach().double()) for x in own]
    others = [{**groups[0], "params": wide[:1]}, {**groups[1], "params": wide[1:]}]
    expected = torch.optim.AdamW(others, weight_decay=0.3)
    for number in range(3):
        for each in (optimizer, expected):
            each.param_groups[1]["lr"] = 1e-3 * (number + 1)
        give(own, wide)
        optimizer.clipped_step(0.0)
        expected.step()
        check(own, wide)


def test_parameters_without_a_gradient_stay_and_their_steps_lag() -> None:
    own = parameters([(40,), (50,), (60,)])
    wide, expected = twins(own, torch.optim.Adam, lr=0.1, weight_decay=0.1, eps=1e-3)
    optimizer = FusedAdam(own, lr=0.1, weight_decay=0.1, eps=1e-3)
    for missing in ([1], [], [0, 2], [0, 1, 2], []):
        give(own, wide)
        for number in missing:
            own[number].grad = wide[number].grad = None
        norm = optimizer.clipped_step(2.0)
        wanted = torch.nn.utils.clip_grad_norm_(wide, 2.0)
        expected.step()
        assert norm.item() == pytest.approx(float(wanted), rel=1e-6)
        check(own, wide, 1e-5)
    assert [optimizer.state[x]["step"] for x in own] == [3, 3, 3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_spread_as_in_torch(bad: float) -> None:
    own = parameters([(40,), (5,)])
    wide, expected = twins(own, torch.optim.Adam)
    optimizer = FusedAdam(own)
    give(own, wide)
    own[0].grad[3] = wide[0].grad[3] = bad
    norm = optimizer.clipped_step(1.0)
    wanted = torch.nn.utils.clip_grad_norm_(wide, 1.0)
    expected.step()
    assert str(norm.item()) == str(wanted.item())
    for x, other in zip(own, wide, strict=True):
        assert torch.equal(x.isnan(), other.isnan())


def test_gradients_in_another_order_and_parameters_anywhere_in_memory() -> None:
    whole = torch.randn(1 + 6 * 20 + 30)
    own = [nn.Parameter(whole[1:121].view(6, 20)), nn.Parameter(whole[121:])]
    wide, expected = twins(own, torch.optim.Adam, lr=0.1)
    optimizer = FusedAdam(own, lr=0.1)
    rest = whole[0].item()
    for _ in range(2):
        give(own, wide)
        gradient = torch.randn(20, 6).T
        with torch.no_grad():
            wide[0].grad = gradient.double()
        own[0].grad = gradient
        assert own[0].grad.stride() != own[0].stride()
        optimizer.clipped_step(0.0)
        expected.step()
        check(own, wide, 1e-5)
    assert whole[0].item() == rest


def with_copies(own: Sequence[nn.Parameter], optimizer: FusedAdam) -> NarrowCopies:
    copies = NarrowCopies(torch.bfloat16)
    copies.of({str(number): x for number, x in enumerate(own)})
    optimizer.use_copies(copies.by_weight)
    return copies


def test_copies_give_their_gradients_and_follow_their_weights() -> None:
    own = parameters()
    wide, expected = twins(own, torch.optim.AdamW, lr=1e-2, weight_decay=0.0)
    optimizer = FusedAdam(own, lr=1e-2, decoupled=True)
    copies = with_copies(own[2:], optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        give(own, wide)
        for weight, narrow in copies.by_weight.items():
            assert narrow.grad is None and narrow.stride() == weight.stride()
            narrow.grad = torch.randn_like(narrow)
            weight.grad = None
            wide[next(n for n, x in enumerate(own) if x is weight)].grad = narrow.grad.double()
        norm = optimizer.clipped_step(1.0)
        wanted = torch.nn.utils.clip_grad_norm_(wide, 1.0)
        expected.step()
        assert norm.item() == pytest.approx(wanted.item(), rel=1e-6)
        check(own, wide)
        for weight, narrow in copies.by_weight.items():
            # The interpreter cuts digits off where a GPU rounds.
            torch.testing.assert_close(narrow.detach().float(), weight.detach(), rtol=2.0**-7, atol=0)
    optimizer.zero_grad()
    assert all(x.grad is None for x in (*own, *copies.by_weight.values()))


def test_copies_are_made_again_after_another_change() -> None:
    own = parameters([(40,), (50,)])
    copies = with_copies(own, FusedAdam(own))
    first, second = copies.by_weight.values()
    with torch.no_grad():
        own[1].mul_(2)
        first.zero_()
    copies.refresh()
    assert torch.equal(second, own[1].bfloat16()) and not first.any()  # only what has changed
    with torch.no_grad():
        own[0].add_(1)
    copies.current()
    copies.refresh()
    assert not first.any()


@pytest.mark.parametrize(
    "kinds", [(FusedAdam, FusedAdam), (FusedAdam, torch.optim.Adam), (torch.optim.Adam, FusedAdam)]
)
def test_a_saved_state_goes_on_in_either_optimizer(kinds: tuple[type, type]) -> None:
    own = parameters([(40,), (3, 2, 2, 2)])
    wide, expected = twins(own, torch.optim.Adam, lr=0.1)
    names = {"a": own[0], "b": own[1]}
    optimizer = kinds[0](own, lr=0.1)
    for number in range(4):
        give(own, wide)
        if number == 2:
            tensors = {name: x.clone() for name, x in optimizer_tensors(optimizer, names).items()}
            assert {key.split(".")[0] for key in tensors} == {"step", "exp_avg", "exp_avg_sq"}
            assert tensors["step.a"].dtype == torch.float32 and tensors["step.a"] == 2
            optimizer = kinds[1](own, lr=0.1)
            fill_optimizer(optimizer, names, tensors)
        optimizer.step()
        expected.step()
        check(own, wide, 1e-5)


def test_a_state_loaded_later_is_used() -> None:
    """The kernels read addresses, so a moment or parameter at another address must be seen."""
    own = parameters([(40,)])
    wide, expected = twins(own, torch.optim.Adam, lr=0.1)
    optimizer = FusedAdam(own, lr=0.1)
    give(own, wide)
    optimizer.step()
    expected.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state[own[0]]["step"] == 1

    def step() -> None:
        give(own, wide)
        optimizer.step()
        expected.step()
        check(own, wide, 1e-5)

    step()
    own[0].data = own[0].data.clone()
    step()
    fill_optimizer(optimizer, {"a": own[0]}, optimizer_tensors(optimizer, {"a": own[0]}))
    step()


def test_gradients_are_not_kept() -> None:
    own = parameters([(40,), (6, 20)])
    optimizer = FusedAdam(own)
    for x in own:
        x.grad = torch.randn(x.shape[::-1]).permute(*reversed(range(x.dim())))
    kept = [weakref.ref(x.grad) for x in own]
    optimizer.step()
    optimizer.zero_grad()
    assert [x() for x in kept] == [None, None]


def test_launches_do_not_grow_with_the_tensors() -> None:
    own = parameters([(7,)] * 50)
    optimizer = FusedAdam(own)
    copies = with_copies(own[:30], optimizer)
    for x in (*copies.by_weight.values(), *own[30:]):
        x.grad = torch.ones_like(x)
    with recording() as launches:
        optimizer.clipped_step(1.0)
    assert len(launches) == 5


def test_what_is_changed_is_noted() -> None:
    """Autograd refuses to use a tensor that was changed after it was kept."""
    own = parameters([(4,)])[0]
    optimizer = FusedAdam([own])
    loss = own.square().sum()
    own.grad = torch.ones(4)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(3, dtype=torch.float64), "float64 of shape .3. .*wanted float32"),
        (lambda: torch.zeros(3, 4)[:, :2], r"strides \(4, 1\), wanted float32 in one piece"),
        (lambda: torch.zeros(3).expand(2, 3), "wanted float32 in one piece"),
    ],
)
def test_wrong_parameters(make: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedAdam([make().requires_grad_()])


def test_wrong_copies() -> None:
    own = parameters([(4, 3), (5,)])
    optimizer = FusedAdam(own)
    with pytest.raises(ValueError, match=r"a copy is .*wanted the same form"):
        optimizer.use_copies({own[0]: torch.zeros(3, 4, dtype=torch.bfloat16).T})
    with pytest.raises(ValueError, match="several dtypes"):
        optimizer.use_copies({own[0]: own[0].bfloat16(), own[1]: own[1].half()})
    assert not optimizer.copies


def test_one_piece() -> None:
    x = torch.zeros(2, 3, 4)
    assert all(map(is_one_piece, (x, x.transpose(0, 2), x[:1], x[0, 0, 0], x[:0], x.contiguous().permute(1, 2, 0))))
    assert not any(map(is_one_piece, (x[:, :2], x[..., ::2], torch.zeros(3).expand(2, 3))))


def test_a_single_element_has_any_stride() -> None:
    """Such as the pixels of a 1x1 convolution's weight, whose gradient has the channels innermost."""
    x = torch.zeros(4, 3, 1, 1)
    assert in_same_order(x, x.as_strided(x.shape, (3, 1, 3, 3)))
    assert not in_same_order(x, x.as_strided(x.shape, (1, 4, 1, 1)))
    assert not in_same_order(x, x.view(3, 4, 1, 1))


def test_chunks_cover_every_tensor() -> None:
    sizes = [0, 1, adam.CHUNK, adam.CHUNK + 1, 0, 5 * adam.CHUNK - 1]
    found = adam.chunks_of(sizes).tolist()
    wanted = [[n, chunk] for n, size in enumerate(sizes) for chunk in range(-(-size // adam.CHUNK))]
    assert found == wanted and adam.chunks_of([]).shape == (0, 2)
