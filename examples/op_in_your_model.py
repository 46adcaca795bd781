"""Two ops of prior-fast in a model that is not PRIOR: sigmoid attention and one-to-one matching.

`Plain` is a small model as people write it: patches of images [B, P, D], sentences padded to [B, S, D] with a mask,
attention as matrix products, and a matching by SciPy, report after report. `WithAttention` and `WithMatching` replace
one method each, `WithBoth` has both. The script checks that losses and gradients agree, then times a training step of
each on this machine:

    python op_in_your_model.py
    python op_in_your_model.py --device cuda --dtype bfloat16 --batch 256
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import scipy.optimize
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast import ops
from prior_fast.ops.common.backend import explain

# Largest relative error of the loss and of each gradient, against the plain model in float64.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


class Plain(nn.Module):
    """Aligns patches with sentences, and generates up to Q sentences from an image."""

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)  # queries, keys, values
        self.queries, self.generate = nn.Parameter(torch.randn(queries, width)), nn.Linear(width, width)

    def forward(self, patches: Tensor, sentences: Tensor, mask: Tensor) -> Tensor:
        """patches [B, P, D], sentences [B, S, D], mask [B, S], True where a sentence is -> loss []."""
        for_image, for_text = self.attend(self.image(patches), self.text(sentences), mask)
        generated = self.generate(for_image.mean(dim=1, keepdim=True) + self.queries)
        target = self.match(generated, sentences, mask)
        of_patches = F.cosine_similarity(for_image, patches, dim=-1).mean()
        of_sentences = F.cosine_similarity(for_text, sentences[mask], dim=-1).mean()
        return F.mse_loss(generated, target) - of_patches - of_sentences

    def attend(self, image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What patches read from sentences [B, P, D], and what the real sentences read from patches [sentences, D]."""
        (image_q, image_k, image_v), (text_q, text_k, text_v) = image.chunk(3, dim=-1), text.chunk(3, dim=-1)
        scale = image_q.shape[-1] ** -0.5
        over_sentences = torch.sigmoid(scale * image_q @ text_k.mT) * mask[:, None]
        over_patches = torch.sigmoid(scale * text_q @ image_k.mT)
        return over_sentences @ text_v, (over_patches @ image_v)[mask]

    @torch.no_grad()
    def match(self, generated: Tensor, sentences: Tensor, mask: Tensor) -> Tensor:
        """The sentence that each generated one [B, Q, D] should have been; zeros for those that are left over."""
        wanted = F.pad(sentences * mask[..., None], (0, 0, 0, generated.shape[1] - sentences.shape[1]))  # [B, Q, D]
        costs = torch.cdist(generated.float(), wanted.float(), p=1).cpu().numpy()
        columns = [scipy.optimize.linear_sum_assignment(cost)[1] for cost in costs]
        return torch.stack([each[column] for each, column in zip(wanted, columns)])


def packed(padded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[B, S, D] -> the real rows one after another [rows, D], and the row at which each report begins [B + 1]."""
    offsets = F.pad(mask.sum(dim=1).cumsum(dim=0), (1, 0)).int()
    return padded[mask], offsets  # on a GPU the host waits for the number of rows; packing in the loader avoids that


class WithAttention(Plain):
    """Attention without padding and without stored weights. The parameters and their names stay the same."""

    def attend(self, image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        rows, of_text = packed(text, mask)
        of_image = torch.arange(len(image) + 1, device=image.device, dtype=torch.int32) * image.shape[1]
        # [rows, heads, D]; the parts of one matrix product need no copy.
        image_q, image_k, image_v = image.flatten(0, 1)[:, None].chunk(3, dim=-1)
        text_q, text_k, text_v = rows[:, None].chunk(3, dim=-1)
        longest, patches = text.shape[1], image.shape[1]
        for_image = ops.sigmoid_attention(image_q, text_k, text_v, of_image, of_text, patches, longest)
        for_text = ops.sigmoid_attention(text_q, image_k, image_v, of_text, of_image, longest, patches)
        return for_image[:, 0].unflatten(0, image.shape[:2]), for_text[:, 0]


class WithMatching(Plain):
    """All reports of a batch matched at once, on the device of the tensors."""

    @torch.no_grad()
    def match(self, generated: Tensor, sentences: Tensor, mask: Tensor) -> Tensor:
        rows, of_text = packed(sentences, mask)
        found = ops.match_prototypes(generated, rows, of_text)  # [B, Q]: a sentence of the report, -1 for none
        # For costs of your own there is ops.linear_sum_assignment(costs [B, N, M]) -> columns [B, N].
        return torch.where(found[..., None] < 0, 0, rows[found.clamp(min=0) + of_text[:-1, None]])


class WithBoth(WithAttention, WithMatching):
    """`Plain` with two methods replaced."""


def made_up_batch(batch: int, width: int, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random patches, padded sentences and their mask. The first report has one sentence."""
    lengths = torch.randint(1, longest + 1, (batch, 1)).index_fill(0, torch.tensor(0), 1)
    return torch.randn(batch, 49, width), torch.randn(batch, longest, width), torch.arange(longest) < lengths


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...]) -> None:
    """One step of an ordinary training loop."""
    optimizer.zero_grad()
    model(*batch).backward()
    optimizer.step()


def loss_and_gradients(model: nn.Module, batch: tuple[Tensor, ...]) -> list[Tensor]:
    """The loss and the gradient of each parameter."""
    loss = model(*batch)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def milliseconds(calls: Sequence[Callable[[], None]], repeats: int, device: str) -> list[float]:
    """The median time of each call. The calls take turns, so that a disturbance meets all of them."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _, (call, samples) in product(range(repeats + 3), list(zip(calls, seconds))):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - start)
    return [1000 * statistics.median(samples[3:]) for samples in seconds]  # the first three warm up


def main() -> None:
    """Compare the variants with the plain model in float64, then time their training steps."""
    parser = argparse.ArgumentParser(description="Sigmoid attention and matching: plain PyTorch beside prior-fast.")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    for name, default in (("batch", 128), ("width", 256), ("sentences", 16), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    args = parser.parse_args()
    if min(args.batch, args.width, args.sentences, args.steps) < 1:
        parser.error("--batch, --width, --sentences and --steps must be 1 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here; give --device cpu")
    dtype, size = getattr(torch, args.dtype), (args.width, args.sentences)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device

    torch.manual_seed(0)
    patches, sentences, mask = made_up_batch(args.batch, *size)
    batch = patches.to(device, dtype), sentences.to(device, dtype), mask.to(device)
    variants = (Plain, WithAttention, WithMatching, WithBoth)
    models = [variant(*size).to(device, dtype) for variant in variants]
    exact = loss_and_gradients(copy.deepcopy(models[0]).double(), (batch[0].double(), batch[1].double(), batch[2]))
    for model in models:
        model.load_state_dict(models[0].state_dict())
        pairs = zip(loss_and_gradients(model, batch), exact, strict=True)
        error = max(float((found - right).norm() / right.norm()) for found, right in pairs)
        assert error < TOLERANCE[dtype], f"{type(model).__name__} differs from float64 by {error:.1e}"
    print(f"loss and gradients of all variants are within {TOLERANCE[dtype]:.0e} of plain PyTorch in float64")

    one, ends = torch.zeros(1, 1, 1, device=device, dtype=dtype), torch.tensor([0, 1], device=device)
    attention = explain(ops.sigmoid_attention, partial(ops.sigmoid_attention, one, one, one, ends, ends, 1, 1))
    matching = explain(ops.match_prototypes, partial(ops.match_prototypes, one, one[0], ends))
    print(f"backends on {device}: sigmoid_attention {attention['backend']}, match_prototypes {matching['backend']}\n")

    steps = [partial(train_step, model, torch.optim.AdamW(model.parameters()), batch) for model in models]
    times = milliseconds(steps, args.steps, device)
    print(f"{'training step':14s} {'ms':>9s} {'plain / this':>13s}")
    for variant, ms in zip(variants, times):
        print(f"{variant.__name__:14s} {ms:9.2f} {times[0] / ms:13.2f}{'  slower here' if ms > times[0] else ''}")


if __name__ == "__main__":
    main()
