"""Images reconstructed from their masked embedding and a report (supplement 4.3, figure 4): own, another, or none."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize

from prior_fast.evaluation.encode import first_image_rows
from prior_fast.evaluation.pointing import targets
from prior_fast.evaluation.read_sentences import with_tokens
from prior_fast.evaluation.reconstruct import channel_masks, reconstruct
from prior_fast.evaluation.statements import FINDINGS, read_statement
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import MARK
from prior_fast.plotting.sheet import Sheet
from prior_fast.plotting.words import one_line

KEY, TITLE, FILE = "reconstruction", "Reconstructed images", "reconstruction.png"
OWN, ANOTHER, NONE = "own report", "another report", "no report"
COLORS = colormaps["RdBu_r"]
NAME_WIDTH = 40  # characters above an image
NARROWEST = 0.05  # of the scale of differences: rounding must not look like a difference


@dataclass(frozen=True)
class Example:
    """An image of a study, and a finding that its report states with the annotated mask; "" and None without one."""

    study: int
    image_row: int
    finding: str = ""
    mask: np.ndarray | None = None


def reconstruction_section(inputs: PictureInputs) -> Section:
    """X-rays and their reconstructions by the image decoder, with three reports."""
    if not inputs.encoder.model.config.use_reconstruction:
        reason = "This model was trained with model.use_reconstruction=false: its image decoder is not trained."
        return Section(KEY, TITLE, absent=reason)
    if inputs.stage < 3:
        reason = f"This checkpoint is from stage {inputs.stage}: the image decoder is trained in stage 3."
        return Section(KEY, TITLE, absent=reason)
    examples = choose_examples(inputs)
    originals = np.asarray(inputs.dataset.images[[example.image_row for example in examples]]) / 255
    versions = reconstructions(inputs, examples)
    inputs.encoder.require_finite("reconstructed images", *versions.values())
    errors = {name: errors_inside(images, originals, examples) for name, images in versions.items()}
    _draw(inputs, examples, originals, versions, errors)
    ratio = inputs.encoder.model.config.mask_ratio
    where = "inside the cyan outline" if any(example.mask is not None for example in examples) else "over the image"
    text = (
        f"The image decoder gets the image's 7x7 embedding, {ratio:.0%} of its channels masked as in training, and for "
        "each patch what it reads from the report's prototypes. The same masked embedding is decoded with the "
        "study's own report, with the report of another study, and with no report. The encoder can't encode a report "
        'without sentences; "no report" is a context of zeros, the sum of the attention over no sentence. The last row '
        "is where the own report makes the image brighter (red) or darker (blue) than no report."
    )
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    caption = f"The error is the mean squared difference {where}, in gray values from 0 to 1. Means: " + ", ".join(
        f"{name} {mean:.4f}" for name, mean in means.items()
    )
    facts = {f"squared_error_{name.replace(' ', '_')}": mean for name, mean in means.items()}
    return Section(KEY, TITLE, text, (Picture(FILE, f"{caption}."),), facts=facts)


def choose_examples(inputs: PictureInputs) -> list[Example]:
    """`config.count` studies, each with another finding as long as there are some; random studies without annotations.

    Only findings that the report states are chosen.
    """
    dataset, rng = inputs.dataset, inputs.rng(6)
    count = min(inputs.config.count, len(dataset))
    owner = {row: study for study in range(len(dataset)) for row in dataset.image_rows(study)}
    marked = targets(dataset.annotations(), FINDINGS)
    chosen: dict[int, Example] = {}
    for number in range(count if marked else 0):
        finding = FINDINGS[number % len(FINDINGS)]
        own = [target for target in marked if target.finding == finding]
        for index in rng.permutation(len(own)):
            study = owner[own[index].image_row]
            states = any(read_statement(sentence).asserts(finding) for sentence in dataset.sentences(study))
            if states and study not in chosen:
                chosen[study] = Example(study, own[index].image_row, finding, own[index].mask)
                break
    for study in rng.permutation(len(dataset)).tolist():
        if len(chosen) < count and study not in chosen:
            chosen[study] = Example(study, int(first_image_rows(dataset, np.array([study]))[0]))
    return list(chosen.values())


def reconstructions(inputs: PictureInputs, examples: list[Example]) -> dict[str, np.ndarray]:
    """The images with each report: float32 [N, 224, 224] in [0, 1]; another report only if there is another study."""
    encoder, dataset, rng = inputs.encoder, inputs.dataset, inputs.rng(7)
    patches = encoder.images(dataset.images, [example.image_row for example in examples]).patches
    masks = channel_masks(encoder, len(examples), inputs.config.seed)
    others = [other_study(len(dataset), example.study, rng) for example in examples]
    queries = encoder.model.config.sentence_decoder.queries  # the most sentences of a report in training
    reports = {OWN: [dataset.sentences(example.study)[:queries] for example in examples]}
    if len(dataset) > 1:
        reports[ANOTHER] = [dataset.sentences(study)[:queries] for study in others]
    reports[NONE] = [[] for _ in examples]
    return {name: reconstruct(encoder, patches, with_tokens(encoder, texts), masks) for name, texts in reports.items()}


def other_study(studies: int, study: int, rng: np.random.Generator) -> int:
    """A random study that is not `study`, unless it is the only one."""
    return (study + int(rng.integers(1, max(studies, 2)))) % studies


def errors_inside(images: np.ndarray, originals: np.ndarray, examples: list[Example]) -> list[float]:
    """The mean squared difference of each image inside its mask, or everywhere if it has none."""
    squares = np.square(images.astype(np.float64) - originals)
    return [
        float(square.mean() if example.mask is None else square[example.mask].mean())
        for square, example in zip(squares, examples)
    ]


def _draw(
    inputs: PictureInputs,
    examples: list[Example],
    originals: np.ndarray,
    versions: dict[str, np.ndarray],
    errors: dict[str, list[float]],
) -> None:
    differences = versions[OWN] - versions[NONE]
    largest = max(NARROWEST, float(np.abs(differences).max()))
    norm = Normalize(-largest, largest)
    rows = ["original", *versions, "own less none"]
    sheet = Sheet(len(examples), [2, *[0] * (len(rows) - 1)], [0, *[1] * len(versions), 0], cell=320, bar=True)
    for row, name in enumerate(rows):
        sheet.name(row, name)
    for column, example in enumerate(examples):
        study = one_line(f"study {inputs.dataset.study_names[example.study]}", NAME_WIDTH)
        sheet.above(0, column, f"{example.finding or 'no annotation'}\n{study}")
        sheet.image(0, column, originals[column])
        for row, (name, images) in enumerate(versions.items(), start=1):
            sheet.image(row, column, images[column])
            sheet.below(row, column, f"error {errors[name][column]:.4f}")
        sheet.image(len(rows) - 1, column, COLORS(norm(differences[column]))[..., :3])
        if example.mask is not None:
            for row in range(len(rows)):
                sheet.outline(row, column, example.mask, MARK if row < len(rows) - 1 else "black")
    sheet.bar([len(rows) - 1], norm, COLORS, "difference of gray values")
    sheet.save(inputs.out / FILE)
