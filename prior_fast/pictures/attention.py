"""Attention of sentences over X-rays (supplement 4.2, figure 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prior_fast.evaluation.attention_map import attention_maps, departure_maps, typical_maps, upsample
from prior_fast.evaluation.encode import first_image_rows
from prior_fast.evaluation.pointing import targets
from prior_fast.evaluation.statements import FINDINGS, OTHER, named_finding
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import new_figure, outline, save, show_attention, show_image, wrap
from prior_fast.radiology.labels import CHEXPERT_LABELS, present

KEY, TITLE = "attention", "Attention over the image"
PROMPT = "{} is observed"
SENTENCES_SHOWN = 3
TYPICAL_IMAGES = 128


@dataclass(frozen=True)
class Example:
    """An image with a finding, and the mask of the finding, if it is annotated."""

    image_row: int
    finding: str
    mask: np.ndarray | None


def attention_section(inputs: PictureInputs) -> Section:
    """Heat maps of prompts, and of the sentences of a few reports."""
    if not inputs.encoder.aligns_locally:
        reason = "This model was trained with model.use_local_alignment=false: its attention shows no alignment."
        return Section(KEY, TITLE, absent=reason)
    text = (
        "Each heat map is the sigmoid attention between one sentence and the 7x7 patches of the image: the mean of "
        "both directions, enlarged bilinearly. Its colours run from the smallest to the greatest weight in the image."
    )
    if inputs.encoder.model.config.layout == "released":
        text += " layout=released mixes positions with channels, so the maps do not show positions in the image."
    pictures = []
    examples = choose_examples(inputs)
    if examples:
        pictures.append(_findings_picture(inputs, examples))
    pictures.append(_reports_picture(inputs))
    facts = {"examples": {example.finding: example.image_row for example in examples}}
    return Section(KEY, TITLE, text, tuple(pictures), facts=facts)


def choose_examples(inputs: PictureInputs) -> list[Example]:
    """For each finding an annotated image, or, if the dataset has no annotations, an image of a study labelled so."""
    dataset, rng = inputs.dataset, inputs.rng(0)
    marked = targets(dataset.annotations(), FINDINGS)
    labelled = present(dataset.labels, CHEXPERT_LABELS, FINDINGS)
    examples = []
    for index, finding in enumerate(FINDINGS):
        own = [target for target in marked if target.finding == finding]
        studies = np.flatnonzero(labelled[:, index])
        if own:
            target = own[rng.integers(len(own))]
            examples.append(Example(target.image_row, finding, target.mask))
        elif not marked and len(studies):
            row = int(first_image_rows(dataset, rng.choice(studies, 1))[0])
            examples.append(Example(row, finding, None))
    return examples


def maps_of(inputs: PictureInputs, image_rows: Sequence[int], sentences: Sequence[str]) -> np.ndarray:
    """The heat map of each image with its sentence: [N, 224, 224]."""
    patches = inputs.encoder.images(inputs.dataset.images, image_rows).patches
    prototypes = inputs.encoder.texts([[sentence] for sentence in sentences]).prototypes
    with torch.inference_mode():
        return upsample(attention_maps(inputs.encoder.model, patches, prototypes)).cpu().numpy()


def departures_of(inputs: PictureInputs, image_rows: Sequence[int], sentences: Sequence[str]) -> np.ndarray:
    """The departure of each image's attention from its sentence's mean over some images: [N, 224, 224]."""
    dataset, encoder = inputs.dataset, inputs.encoder
    studies = inputs.rng(2).permutation(len(dataset))[:TYPICAL_IMAGES]
    prototypes = encoder.texts([[sentence] for sentence in sentences]).prototypes
    some = encoder.images(dataset.images, first_image_rows(dataset, studies)).patches
    own = encoder.images(dataset.images, image_rows).patches
    typical = typical_maps(encoder.model, some, prototypes)
    return upsample(departure_maps(encoder.model, own, prototypes, typical)).cpu().numpy()


def _findings_picture(inputs: PictureInputs, examples: list[Example]) -> Picture:
    prompts, image_rows = [PROMPT.format(e.finding) for e in examples], [e.image_row for e in examples]
    rows = {
        "attention": maps_of(inputs, image_rows, prompts),
        "departure": departures_of(inputs, image_rows, prompts),
    }
    figure = new_figure(10 * len(examples) / len(FINDINGS) + 0.2, 5.7)
    axes = figure.subplots(1 + len(rows), len(examples), squeeze=False)
    for column, example in enumerate(examples):
        image = inputs.dataset.image(example.image_row)
        show_image(axes[0, column], image, example.finding)
        for row, attention in enumerate(rows.values(), start=1):
            show_attention(axes[row, column], image, attention[column])
            y, x = np.unravel_index(attention[column].argmax(), image.shape)
            axes[row, column].plot(x, y, "+", color="white", markersize=9, markeredgewidth=1.6)
        if example.mask is not None:
            for row in range(1 + len(rows)):
                outline(axes[row, column], example.mask)
    for row, name in enumerate(("X-ray", *rows)):
        axes[row, 0].set_ylabel(name)
    save(figure, inputs.out / "attention-findings.png")
    marks = ", the cyan outline is the annotation of the finding" if examples[0].mask is not None else ""
    caption = (
        f'Attention of "<finding> is observed" over an image that shows the finding, and how far it departs from '
        f"the sentence's mean over {TYPICAL_IMAGES} images, up or down. The cross is the maximum{marks}."
    )
    return Picture("attention-findings.png", caption)


def _reports_picture(inputs: PictureInputs) -> Picture:
    dataset, rng = inputs.dataset, inputs.rng(1)
    count = min(inputs.config.count, len(dataset))
    studies = np.sort(rng.choice(len(dataset), count, replace=False))
    rows = first_image_rows(dataset, studies)
    chosen = [choose_sentences(dataset.sentences(int(study))) for study in studies]
    pairs = [(int(row), sentence) for row, sentences in zip(rows, chosen) for sentence in sentences]
    maps = iter(maps_of(inputs, [row for row, _ in pairs], [sentence for _, sentence in pairs]))
    figure = new_figure(10, 3.2 * count)
    axes = figure.subplots(count, 1 + SENTENCES_SHOWN, squeeze=False)
    for line, (study, row, sentences) in enumerate(zip(studies, rows, chosen)):
        show_image(axes[line, 0], dataset.image(int(row)), f"study {dataset.study_ids[study]}")
        for column in range(SENTENCES_SHOWN):
            if column < len(sentences):
                title = wrap(sentences[column], 32, lines=3)
                show_attention(axes[line, 1 + column], dataset.image(int(row)), next(maps), title)
            else:
                axes[line, 1 + column].set_axis_off()
    save(figure, inputs.out / "attention-reports.png")
    return Picture("attention-reports.png", "Attention of sentences from the studies' own reports.")


def choose_sentences(sentences: Sequence[str]) -> list[str]:
    """Up to three sentences in the report's order; sentences that name a finding come first."""
    named = [sentence for sentence in sentences if named_finding(sentence) != OTHER]
    others = [sentence for sentence in sentences if named_finding(sentence) == OTHER]
    return [*named, *others][:SENTENCES_SHOWN]
