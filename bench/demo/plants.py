"""Defects that a user of the model could make, as settings or as functions that replace those of the package.

They show which figures of the demo notice a defect. Nothing else uses them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.training import stages

# An object, the name of its attribute, and what makes the replacement from the attribute's value.
Patch = tuple[Any, str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Defect:
    """A defect.

    Attributes:
        what: a description in one sentence.
        settings: key=value words of the training.
        patches: replaced functions.
    """

    what: str
    settings: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()

    def plant(self, replace: Callable[[Any, str, Any], None] = setattr) -> None:
        """Replace the functions in this process."""
        for owner, name, make in self.patches:
            replace(owner, name, make(getattr(owner, name)))


def transposed_matching(match_prototypes: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The matching read the wrong way: query i gets the sentence whose number is that of the query of sentence i."""

    def planted(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, **options: Any) -> Tensor:
        match = match_prototypes(prediction, target, cu_seqlens, **options)
        queries, lengths = match.shape[1], cu_seqlens.diff()[:, None].long()
        # Queries without a sentence get the padding columns in order: each row is then a permutation.
        rank = (match < 0).cumsum(dim=1) - 1
        columns = torch.where(match < 0, lengths + rank, match)
        rows = torch.arange(queries, device=match.device).expand_as(match)
        inverse = torch.empty_like(columns).scatter_(1, columns, rows)
        return inverse.masked_fill(inverse >= lengths, -1)

    return planted


def unscaled_attention(init: Callable[..., None]) -> Callable[..., None]:
    """`LocalCrossAttention.__init__` of an attention whose logits lack the factor D^-0.5 wherever they are used."""

    def planted(self: LocalCrossAttention, channels: int, *args: Any, **options: Any) -> None:
        init(self, channels, *args, **options)

        def enlarge(module: Any, inputs: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # Every logit has one query, the first of the joined layers.
            return output[0] * channels**0.5, *output[1:]

        for side in (self.image, self.text):
            side.register_forward_hook(enlarge)

    return planted


def another_pair(attend: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """`stages.attend` of each image with the sentences of another image of the batch, in reversed order."""

    def planted(model: Any, batch: Any, patches: Tensor, sentences: Tensor) -> dict[str, Tensor]:
        context = attend(model, batch, patches.flip(0), sentences)
        return context | {"for_image": context["for_image"].flip(0)}

    return planted


def reversed_divergence(kl_term: Callable[..., Any]) -> Callable[..., Any]:
    """`stages.kl_term` with the true and the generated distribution exchanged."""

    def planted(model: Any, batch: Any, sentences: Tensor, generated: Tensor) -> Any:
        return kl_term(model, batch, generated, sentences)

    return planted


DEFECTS = {
    "none": Defect("the model as it is"),
    "transposed matching": Defect(
        "the matching of generated prototypes and sentences is read the wrong way",
        patches=((stages, "match_prototypes", transposed_matching),),
    ),
    "released layout": Defect(
        "the image's map is reshaped without moving its axes, which mixes channels and positions",
        settings=("model.layout=released",),
    ),
    "attention without scale": Defect(
        "the logits of the local attention lack the factor D^-0.5, in training and evaluation",
        patches=((LocalCrossAttention, "__init__", unscaled_attention),),
    ),
    "sentences of another pair": Defect(
        "the local attention of an image gets the sentences of another image of the batch",
        patches=((stages, "attend", another_pair),),
    ),
    "reversed divergence": Defect(
        "the two distributions of the prototypes' KL divergence are exchanged",
        patches=((stages, "kl_term", reversed_divergence),),
    ),
    "mirrored images": Defect(
        "half of the training images are mirrored, and left and right stay in the reports",
        settings=("data.flip=true",),
    ),
}
