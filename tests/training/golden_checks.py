"""Bounds of errors against a recording of the whole model, and the comparison of a stage's losses and gradients."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prior_fast.model.prior import PRIORModel
from tests.training.golden_model import RecordedModel, Recording

# A term's recorded name -> its name here. The recorded ones contain lambda, which here is a weight of the config.
TERMS = {
    "global_alignment_loss": "global_alignment",
    "local_image_loss": "local_image",
    "local_text_loss": "local_text",
    "proto_loss": "prototype",
    "rec_image_loss": "image_reconstruction",
    "spg_loss": "prototype_generation",
    "kl_loss": "prototype_kl",
    "gpa_loss": "report_generation",
    "total": "loss",
}
WITH_LAMBDA = ("prototype", "prototype_generation")
CONVOLUTIONS = ("image_encoder.encoder.", "image_decoder.")
Gradients = Callable[[nn.Module], dict[str, Tensor]]


class Bounds:
    """The greatest errors allowed in a dtype, relative to an array's greatest entry.

    In float64 they leave room for another order of summation only. In float32 they are multiples of the authors' own
    error. In training that multiple is large on a CPU: PyTorch sums the statistics of a batch normalization one number
    after another where the channels are innermost, and in parts where they are outermost, as in the authors' run. In
    the narrow layers between batch normalizations the gradient then jumps where a ReLU or a maximum decides otherwise.
    """

    def __init__(self, recording: Recording, dtype: torch.dtype, mode: str) -> None:
        self.noise = recording.noise
        self.exact, self.mode = dtype == torch.float64, mode

    def output(self, name: str) -> float:
        return 1e-11 if self.exact else (4 if self.mode == "eval" else 80) * self.noise(name)

    def loss(self, name: str) -> float:
        return 1e-11 if self.exact else 4 * self.noise(name) + (2e-6 if self.mode == "eval" else 1e-4)

    def gradient(self, name: str, parameter: str) -> float:
        if self.exact:
            return 1e-9
        if parameter.startswith(CONVOLUTIONS):
            return 0.3
        return 80 * self.noise(name) + (1e-2 if parameter == "whole_norm" else 5e-4)


def check(recording: Recording, actual: Tensor, name: str, bound: float) -> None:
    error = recording.error(actual, name)
    assert error <= bound, f"{name}: error {error:.1e}, allowed {bound:.1e}"


def check_losses(recorded: RecordedModel, terms: dict[str, Tensor], mode: str, stage: int, bounds: Bounds) -> None:
    """Every term and the total of a stage."""
    names = [name for name in recorded.recording.names(f"{mode}.loss.stage{stage}.") if "published" not in name]
    assert {TERMS[name] for name in names} == set(terms)
    for name in names:
        term = terms[TERMS[name]]
        if TERMS[name] in WITH_LAMBDA:
            term = term * getattr(recorded.config().loss, TERMS[name])
        full = f"{mode}.loss.stage{stage}.{name}"
        check(recorded.recording, term, full, bounds.loss(full))


def check_gradients(recorded: RecordedModel, model: PRIORModel, by_name: Gradients, stage: int, bounds: Bounds) -> None:
    """The recorded gradients of a stage, and the norm of all gradients together."""
    found = recorded.by_authors_names(by_name(model))
    found["whole_norm"] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    names = recorded.recording.names(f"train.grad.stage{stage}.")
    assert len(names) > 20
    for parameter in names:
        full = f"train.grad.stage{stage}.{parameter}"
        check(recorded.recording, found[parameter], full, bounds.gradient(full, parameter))
