"""The images that show the attention of prompts: for each finding one whose maximum hits the annotation, and one whose
maximum misses it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prior_fast.evaluation.attention_map import attention_maps, departure_maps, typical_maps, upsample
from prior_fast.evaluation.encode import first_image_rows
from prior_fast.evaluation.pointing import Target, play, targets
from prior_fast.evaluation.statements import FINDINGS
from prior_fast.model.prior import PRIORModel
from prior_fast.pictures.config import PictureInputs
from prior_fast.radiology.labels import present

PROMPT = "{} is observed"


@dataclass(frozen=True)
class Kind:
    """A quantity that is shown over images.

    Attributes:
        key: short name, for files.
        name, unit: for captions and colour bars.
        most: its greatest possible value.
        maps: (model, patches [N, P, D], prompts [N, D], typical [2, N, ...]) -> [N, sqrt P, sqrt P].
    """

    key: str
    name: str
    unit: str
    most: float
    maps: Callable[[PRIORModel, Tensor, Tensor, Tensor], Tensor]


KINDS = (
    Kind(
        "weight",
        "Attention weight",
        "attention weight (0 to 1)",
        1.0,
        lambda model, patches, prompts, typical: attention_maps(model, patches, prompts),
    ),
    Kind(
        "departure",
        "Departure from the mean attention",
        "departure: difference of weights, sum of both directions (0 to 2)",
        2.0,
        departure_maps,
    ),
)


@dataclass(frozen=True)
class Labelled:
    """An image with the values over it: float32 [224, 224]."""

    image_row: int
    values: np.ndarray


@dataclass(frozen=True)
class Shown(Labelled):
    """An image with the mask of the finding: bool [224, 224]."""

    mask: np.ndarray


@dataclass(frozen=True)
class Pointed:
    """A finding in the sample: how many of its targets are hit, the chance of a hit, and an image of either outcome."""

    finding: str
    hits: int
    targets: int
    chance: float
    hit: Shown | None
    miss: Shown | None


def pointed_examples(inputs: PictureInputs, kind: Kind) -> list[Pointed]:
    """The annotated findings in the images of the sample; findings that none of them has are left out."""
    sample, findings = set(inputs.sample.tolist()), tuple(dict.fromkeys([*inputs.own_classes, *FINDINGS]))
    marked = [each for each in targets(inputs.dataset.annotations(), findings) if each.image_row in sample]
    rng, found = inputs.rng(0), []
    for finding in findings:
        own = [target for target in marked if target.finding == finding]
        if own:
            found.append(_pointed(finding, own, values_of(inputs, kind, finding, [t.image_row for t in own]), rng))
    return found


def labelled_examples(inputs: PictureInputs, kind: Kind) -> dict[str, Labelled]:
    """For each finding an image of a study that is labelled so."""
    dataset, rng = inputs.dataset, inputs.rng(0)
    found: dict[str, Labelled] = {}
    findings = [name for name in inputs.findings if name in dataset.classes]
    labelled = present(dataset.labels, dataset.classes, findings)
    for index, finding in enumerate(findings):
        studies = np.flatnonzero(labelled[:, index])
        if len(studies):
            row = int(first_image_rows(dataset, rng.choice(studies, 1))[0])
            found[finding] = Labelled(row, values_of(inputs, kind, finding, [row])[0])
    return found


@torch.inference_mode()
def values_of(inputs: PictureInputs, kind: Kind, finding: str, image_rows: list[int]) -> np.ndarray:
    """The values of the finding's prompt over images: float32 [N, 224, 224]."""
    encoder, images = inputs.encoder, inputs.dataset.images
    prompt = encoder.texts([[PROMPT.format(finding)]]).prototypes
    typical = typical_maps(encoder.model, encoder.images(images, inputs.sample).patches, prompt)
    patches = encoder.images(images, image_rows).patches
    count = len(image_rows)
    maps = kind.maps(encoder.model, patches, prompt.expand(count, -1), typical.expand(-1, count, -1, -1))
    encoder.require_finite("attention maps", maps)
    return upsample(maps, images.shape[1]).cpu().numpy()


def _pointed(finding: str, own: list[Target], values: np.ndarray, rng: np.random.Generator) -> Pointed:
    played = play(values, np.stack([target.mask for target in own]))
    # Several equal maxima count as a hit if most of them are inside.
    hit = played["hit"] > 0.5

    def one(which: np.ndarray) -> Shown | None:
        if not len(which):
            return None
        index = int(rng.choice(which))
        return Shown(own[index].image_row, values[index], own[index].mask)

    return Pointed(
        finding,
        int(hit.sum()),
        len(own),
        float(played["chance"].mean()),
        one(np.flatnonzero(hit)),
        one(np.flatnonzero(~hit)),
    )
