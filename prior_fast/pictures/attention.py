"""Attention of sentences over X-rays (supplement 4.2, figure 3): where it hits a finding, and where it misses."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from prior_fast.evaluation.attention_map import attention_maps, upsample
from prior_fast.evaluation.encode import first_image_rows
from prior_fast.evaluation.statements import OTHER, named_finding
from prior_fast.pictures.attention_examples import (
    KINDS,
    PROMPT,
    Kind,
    Labelled,
    Pointed,
    Shown,
    labelled_examples,
    pointed_examples,
)
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import RIGHT, WRONG
from prior_fast.plotting.overlay import common_scale, show_overlay, show_scale
from prior_fast.plotting.sheet import Sheet
from prior_fast.plotting.words import one_line, wrap

KEY, TITLE = "attention", "Attention over the image"
SENTENCES_SHOWN = 3
NAME_WIDTH = 30  # characters above an image


def attention_section(inputs: PictureInputs) -> Section:
    """Heat maps of prompts on images with the finding, and of the sentences of a few reports."""
    if not inputs.encoder.aligns_locally:
        reason = "This model was trained with model.use_local_alignment=false: its attention shows no alignment."
        return Section(KEY, TITLE, absent=reason)
    text = (
        f"Each overlay is the {inputs.encoder.model.config.attention} attention between one sentence and the 7x7 "
        "patches of the image, enlarged bilinearly. Its opacity grows with the value, and all images beside a colour "
        "bar share its scale. The weight is the mean of both directions, from 0 to 1. The departure is not a weight: "
        f"it is the difference of the weights from the sentence's mean weights over {len(inputs.sample)} images, up or "
        "down, summed over both directions, from 0 to 2. The cross marks the greatest value, the cyan outline the "
        "annotation of the finding."
    )
    if inputs.encoder.model.config.layout == "released":
        text += " layout=released mixes positions with channels, so the maps do not show positions in the image."
    pictures, facts, absent = [], {}, ""
    for kind in KINDS:
        pointed = pointed_examples(inputs, kind)
        if pointed:
            pictures.append(_pointed_picture(inputs, kind, pointed))
            facts[kind.key] = {each.finding: [each.hits, each.targets] for each in pointed}
            continue
        shown = labelled_examples(inputs, kind)
        if shown:
            pictures.append(_labelled_picture(inputs, kind, shown))
        else:
            absent = (
                f"Prompts over images with a finding are left out: the {inputs.dataset.split} split has no label and "
                f"no annotation of {', '.join(inputs.findings)}."
            )
    pictures.append(_reports_picture(inputs))
    return Section(KEY, TITLE, text, tuple(pictures), absent=absent, facts={"hits": facts})


def _pointed_picture(inputs: PictureInputs, kind: Kind, pointed: Sequence[Pointed]) -> Picture:
    """For each finding an image whose maximum hits it and one whose maximum misses it, each also without overlay."""
    outcomes: tuple[tuple[str, str, str, Callable[[Pointed], Shown | None]], ...] = (
        ("hit", "maximum inside", RIGHT, lambda each: each.hit),
        ("miss", "maximum outside", WRONG, lambda each: each.miss),
    )
    scale = common_scale([s.values for each in pointed for s in (each.hit, each.miss) if s], kind.unit, kind.most)
    sheet = Sheet(len(pointed), above=(2, 0, 1, 0), below=(0, 0, 0, 0), bar=True)
    for line, (outcome, name, color, which) in enumerate(outcomes):
        plain, heat = 2 * line, 2 * line + 1
        sheet.name(plain, "X-ray")
        sheet.name(heat, name, color, "bold")
        for column, each in enumerate(pointed):
            shown = which(each)
            if shown is None:
                sheet.inside(plain, column, f"no {outcome}\namong {each.targets}")
                continue
            image = inputs.dataset.image(shown.image_row)
            sheet.image(plain, column, image)
            show_overlay(sheet, heat, column, image, shown.values, scale)
            for row in (plain, heat):
                sheet.outline(row, column, shown.mask)
    for column, each in enumerate(pointed):
        sheet.above(0, column, f"{one_line(each.finding, NAME_WIDTH)}\n{each.hits} of {each.targets} hit")
    show_scale(sheet, range(4), scale)
    file = f"attention-{kind.key}.png"
    sheet.save(inputs.out / file)
    hits, targets = sum(each.hits for each in pointed), sum(each.targets for each in pointed)
    chance = sum(each.chance * each.targets for each in pointed) / targets
    caption = (
        f'{kind.name} of "{PROMPT.format("<finding>")}". Above, an image whose maximum lies inside the finding; below, '
        f"one whose maximum lies outside; both drawn at random. Over {targets} findings of {len(inputs.sample)} images "
        f"the maximum is inside for {hits / targets:.1%}; a random place would be for {chance:.1%}."
    )
    return Picture(file, caption)


def _labelled_picture(inputs: PictureInputs, kind: Kind, shown: dict[str, Labelled]) -> Picture:
    """An image of each finding; without annotations nobody knows where the finding is."""
    scale = common_scale([each.values for each in shown.values()], kind.unit, kind.most)
    sheet = Sheet(len(shown), above=(1, 0), below=(0, 0), bar=True)
    for column, (finding, each) in enumerate(shown.items()):
        image = inputs.dataset.image(each.image_row)
        sheet.above(0, column, one_line(finding, NAME_WIDTH))
        sheet.image(0, column, image)
        show_overlay(sheet, 1, column, image, each.values, scale)
    show_scale(sheet, range(2), scale)
    file = f"attention-{kind.key}.png"
    sheet.save(inputs.out / file)
    caption = f'{kind.name} of "{PROMPT.format("<finding>")}" over an image of a study that is labelled so.'
    return Picture(file, caption)


def _reports_picture(inputs: PictureInputs) -> Picture:
    dataset, rng, kind = inputs.dataset, inputs.rng(1), KINDS[0]
    count = min(inputs.config.count, len(dataset))
    studies = np.sort(rng.choice(len(dataset), count, replace=False))
    rows = first_image_rows(dataset, studies)
    chosen = [choose_sentences(dataset.sentences(int(study))) for study in studies]
    pairs = [(int(row), sentence) for row, sentences in zip(rows, chosen) for sentence in sentences]
    maps = iter(weights_of(inputs, [row for row, _ in pairs], [sentence for _, sentence in pairs]))
    sheet = Sheet(1 + SENTENCES_SHOWN, [3] * count, [0] * count, cell=320, bar=True)
    for line, (study, row, sentences) in enumerate(zip(studies, rows, chosen)):
        image, own = dataset.image(int(row)), [next(maps) for _ in sentences]
        sheet.above(line, 0, wrap(f"study {dataset.study_names[study]}", NAME_WIDTH, lines=3))
        sheet.image(line, 0, image)
        scale = common_scale(own, kind.unit, kind.most)
        for column, (sentence, values) in enumerate(zip(sentences, own), start=1):
            sheet.above(line, column, wrap(sentence, 30, lines=3))
            show_overlay(sheet, line, column, image, values, scale)
        show_scale(sheet, [line], scale)
    sheet.save(inputs.out / "attention-reports.png")
    caption = "Attention weight of sentences from the studies' own reports. Each row has its own scale."
    return Picture("attention-reports.png", caption)


@torch.inference_mode()
def weights_of(inputs: PictureInputs, image_rows: Sequence[int], sentences: Sequence[str]) -> np.ndarray:
    """The attention weights of each image with its sentence: [N, 224, 224]."""
    patches: Tensor = inputs.encoder.images(inputs.dataset.images, image_rows).patches
    prototypes = inputs.encoder.texts([[sentence] for sentence in sentences]).prototypes
    maps = attention_maps(inputs.encoder.model, patches, prototypes)
    inputs.encoder.require_finite("attention maps", maps)
    return upsample(maps).cpu().numpy()


def choose_sentences(sentences: Sequence[str]) -> list[str]:
    """Up to three sentences in the report's order; sentences that name a finding come first."""
    named = [sentence for sentence in sentences if named_finding(sentence) != OTHER]
    others = [sentence for sentence in sentences if named_finding(sentence) == OTHER]
    return [*named, *others][:SENTENCES_SHOWN]
