"""Adam that clips, updates and narrows all parameters in five launches on a GPU."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = dict[str, Any]


class FusedAdam(torch.optim.Optimizer):
    """Adam, or AdamW, with clipping by the global norm, for parameters in float32 on a GPU with Triton.

    torch's way is a norm of each gradient, a launch that scales them, and its fused Adam. That reads a gradient three
    times and writes it once. Here a gradient is read twice.

    A parameter may have a narrow copy that the forward pass multiplies with instead (`use_copies`). Its gradient is
    then that of the copy, in the copy's dtype, and each update also writes the copy. Products would else narrow their
    weights, and widen their gradients, in each step: 12 bytes of memory traffic for each number, and 24 with what the
    wide gradient costs here. No digit is lost: the products make narrow gradients anyway.

    The state has torch's names, but `step` is an int on the host.

    Args:
        groups: parameters, or groups of them with own settings, as in torch.optim.Adam.
        lr: learning rate.
        betas: of the moments.
        eps: added to the root of the second moment.
        weight_decay: of the weights.
        decoupled: whether the decay is taken from the weights (AdamW) or added to the gradients (Adam).

    Raises:
        ValueError: a parameter is not float32, or not in one piece of memory.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        self.copies: dict[Tensor, Tensor] = {}
        self._tables: dict[tuple[bool, ...], list[_Table]] = {}
        super().__init__(groups, settings)
        for parameter in self._parameters():
            if parameter.dtype != torch.float32 or not is_one_piece(parameter):
                form = f"{parameter.dtype} of shape {list(parameter.shape)} and strides {parameter.stride()}"
                raise ValueError(f"a parameter is {form}, wanted float32 in one piece of memory")

    def use_copies(self, copies: Mapping[Any, Tensor]) -> None:
        """Take the gradients of these parameters from their copies, and keep the copies up to date.

        copies: leaf tensors by parameter, of one narrow dtype, each in its parameter's order of memory.

        Raises:
            ValueError: a copy differs from its parameter in more than the dtype, or they differ in dtype.
        """
        for parameter, copy in copies.items():
            if not in_same_order(copy, parameter) or copy.device != parameter.device:
                raise ValueError(f"a copy is {_form(copy)}, its parameter {_form(parameter)}; wanted the same form")
        if len({copy.dtype for copy in copies.values()} - {torch.float32}) > 1:
            raise ValueError("the copies have several dtypes, wanted one")
        self.copies = dict(copies)
        self._tables.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients, also those of the copies."""
        super().zero_grad(set_to_none)
        for copy in self.copies.values():
            if set_to_none or copy.grad is None:
                copy.grad = None
            else:
                copy.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update without clipping; there is no closure."""
        assert closure is None
        self.clipped_step(0.0)

    @torch.no_grad()
    def clipped_step(self, clip_norm: float) -> Tensor:
        """Clip the gradients to this norm (0: do not) and update; returns their norm before, [] float32.

        Parameters without a gradient stay as they are. Nothing waits for the device. The gradients are not changed.
        """
        from prior_fast.kernels.adam import adam_update, clipping

        tables = self._tables_of(tuple(self._gradient(x) is not None for x in self._parameters()))
        if not tables:
            return torch.zeros((), device=next(self._parameters()).device)
        groups = [table.filled() for table in tables]
        found = clipping(groups, clip_norm)
        for table, group in zip(tables, groups, strict=True):
            adam_update(group, found, table.betas, table.eps, table.decoupled)
            table.gradients = []  # what reuses their memory runs after the kernels, on the same stream
            torch.autograd.graph.increment_version(table.parameters)
        return found[0]

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def _gradient(self, parameter: Tensor) -> Tensor | None:
        return self.copies.get(parameter, parameter).grad

    def _tables_of(self, active: tuple[bool, ...]) -> list["_Table"]:
        """The tables of the parameters with a gradient; they differ in dtype or in settings of the kernel."""
        if active not in self._tables or any(table.moved() for table in self._tables[active]):
            chosen: dict[Any, list[tuple[Tensor, dict[str, Any]]]] = {}
            flags = iter(active)
            for group in self.param_groups:
                for parameter in group["params"]:
                    if next(flags):
                        copied = parameter in self.copies
                        key = (copied, group["betas"], group["eps"], group["decoupled"])
                        chosen.setdefault(key, []).append((parameter, group))
            self._tables = {active: [_Table(self, members) for members in chosen.values()]}
        return self._tables[active]

    def state_of(self, parameter: Tensor) -> State:
        """The state of a parameter, made if there is none."""
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    def load_state_dict(self, state_dict: State) -> None:
        """As torch.optim.Optimizer's; also takes the state of torch's Adam."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["step"] = int(state["step"])
        self._tables.clear()


class _Table:
    """The addresses of parameters that one launch updates, and what changes from step to step."""

    def __init__(self, optimizer: FusedAdam, members: Sequence[tuple[Tensor, dict[str, Any]]]) -> None:
        from prior_fast.kernels.adam import chunks_of

        self.parameters = [parameter for parameter, _ in members]
        self.groups = [group for _, group in members]
        self.states = [optimizer.state_of(parameter) for parameter in self.parameters]
        self.holders = [optimizer.copies.get(parameter, parameter) for parameter in self.parameters]
        self.copies = self.holders[0] is not self.parameters[0]
        self.betas, self.eps = self.groups[0]["betas"], self.groups[0]["eps"]
        self.decoupled = self.groups[0]["decoupled"]
        self.device = self.parameters[0].device
        # The kernels read no address of a copy where there is none.
        rows = [
            [x.data_ptr(), s["exp_avg"].data_ptr(), s["exp_avg_sq"].data_ptr(), copy.data_ptr(), x.numel()]
            for x, s, copy in zip(self.parameters, self.states, self.holders, strict=True)
        ]
        self.rows = rows
        self.aligned = all(address % 16 == 0 for row in rows for address in row[:-1])
        self.addresses = self._sent(np.array(rows, np.int64))
        self.chunks = self._sent(chunks_of([x.numel() for x in self.parameters]))
        self.gradients: list[Tensor] = []

    def moved(self) -> bool:
        """Whether a parameter, a moment or a copy lies elsewhere than before, as after the loading of a state."""
        kept = zip(self.rows, self.parameters, self.states, self.holders, strict=True)
        return any(
            row[:-1] != [x.data_ptr(), s["exp_avg"].data_ptr(), s["exp_avg_sq"].data_ptr(), copy.data_ptr()]
            for row, x, s, copy in kept
        )

    def filled(self) -> Any:
        """What the kernels take, with the gradients and the rates of this step."""
        from prior_fast.kernels.adam import RATES, Updated

        gradients = [self._fitting(holder) for holder in self.holders]
        count = len(gradients)
        addresses = np.array([x.data_ptr() for x in gradients], np.int64)
        rates = np.empty((count, RATES), np.float32)
        found: dict[tuple[int, int], tuple[float, float, float]] = {}
        for row, (state, group) in enumerate(zip(self.states, self.groups, strict=True)):
            state["step"] += 1
            key = id(group), state["step"]
            if key not in found:
                found[key] = _rates(group, state["step"])
            rates[row] = found[key]
        # One copy to the device for both.
        words = -(-rates.nbytes // 8)
        both = np.zeros(count + words, np.int64)
        both[:count] = addresses
        both[count:].view(np.float32)[: rates.size] = rates.ravel()
        sent = self._sent(both)
        self.gradients = gradients  # the kernels get addresses, which do not keep copies alive
        return Updated(
            self.addresses,
            sent[:count],
            sent[count:].view(torch.float32)[: rates.size].view(count, RATES),
            self.chunks,
            gradients[0].dtype,
            self.copies,
            self.aligned and not (addresses % 16).any(),
        )

    def _fitting(self, holder: Tensor) -> Tensor:
        """The gradient, in the order of its holder in memory."""
        gradient = holder.grad
        assert gradient is not None
        if in_same_order(gradient, holder):
            return gradient
        return torch.empty_like(holder).copy_(gradient)

    def _sent(self, values: np.ndarray) -> Tensor:
        """The values on the device, without a wait."""
        found = torch.from_numpy(values)
        return found.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else found


def _rates(group: dict[str, Any], step: int) -> tuple[float, float, float]:
    """The step size, 1 / sqrt(second bias correction), and the decay as the kernel takes it."""
    beta1, beta2 = group["betas"]
    decay = group["weight_decay"] * (group["lr"] if group["decoupled"] else 1.0)
    return group["lr"] / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step), decay


def in_same_order(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and lie in memory in one order; the stride of a single element is any."""
    strides = zip(a.shape, a.stride(), b.stride())
    return a.shape == b.shape and all(one == other for size, one, other in strides if size > 1)


def is_one_piece(x: Tensor) -> bool:
    """Whether the numbers of a tensor fill one piece of memory, in any order of the dimensions."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _form(x: Tensor) -> str:
    return f"{x.dtype} on {x.device} of shape {list(x.shape)} and strides {x.stride()}"
