"""Sentence embeddings with and without the bank in two dimensions, after figure 1 of the supplement (4.1).

The figure compares two models, pre-trained without and with the bank. Here one model's sentences are shown before and
after its bank.
"""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.statements import OTHER, SEVERAL, named_finding
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import new_figure, save
from prior_fast.plotting.words import label

KEY, TITLE, FILE = "embedding", "Sentence embeddings", "embedding.png"
SENTENCES = 1000  # as many as the supplement shows
FEWEST = 10
STEPS = 500  # of t-SNE; the picture of 1000 sentences hardly changes after that
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")


def embedding_section(inputs: PictureInputs) -> Section:
    """t-SNE of the split's sentences, before and after the bank."""
    sentences = draw_sentences(inputs.dataset, SENTENCES, inputs.rng(4))
    if len(sentences) < FEWEST:
        reason = f"The {inputs.dataset.split} split has only {len(sentences)} different sentences."
        return Section(KEY, TITLE, absent=reason)
    encoded = inputs.encoder.texts([[sentence] for sentence in sentences])
    panels = {"without the bank": encoded.sentences}
    if inputs.encoder.uses_bank:
        panels["with the bank"] = encoded.prototypes
    own = inputs.own_classes
    names = [named_class(sentence, own) if own else named_finding(sentence) for sentence in sentences]
    figure = new_figure(10, 5.4)
    axes = figure.subplots(1, 2, squeeze=False)[0]
    for index, (title, points) in enumerate(panels.items()):
        scatter(axes[index], project(points.cpu().numpy(), inputs.config.seed), names, inputs.findings, title)
    if len(panels) == 1:
        axes[1].set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    save(figure, inputs.out / FILE)
    text = (
        f"{len(sentences)} random different sentences of the {inputs.dataset.split} split, in two dimensions by t-SNE. "
        "Neighbouring sentences are similar; distances between groups mean little. The colour is the "
    )
    text += (
        "class of the dataset whose name is in the sentence."
        if own
        else "finding that a sentence names, present or denied, found by keywords."
    )
    caption = "Each dot is the embedding of a sentence by the text encoder"
    if inputs.encoder.uses_bank:
        caption += " (left), or what it reads from the bank (right); sentences with the same prototypes coincide there"
    return Section(
        KEY, TITLE, text, (Picture(FILE, f"{caption}."),), absent=inputs.no_bank, facts={"sentences": len(sentences)}
    )


def draw_sentences(dataset: PreparedDataset, count: int, rng: np.random.Generator) -> list[str]:
    """Up to `count` different sentences of a split, at random."""
    studies = rng.permutation(len(dataset))
    drawn: dict[str, None] = {}
    # A study has several sentences, many of them repeated elsewhere: three studies for each sentence are enough.
    for study in studies[: 3 * count]:
        drawn.update(dict.fromkeys(dataset.sentences(int(study))))
    different = [sentence for sentence in drawn if sentence.strip()]
    return [different[index] for index in rng.permutation(len(different))[:count]]


def named_class(sentence: str, classes: Sequence[str]) -> str:
    """The class whose name is in a sentence; "several findings" or "other"."""
    found = [name for name in classes if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sentence, re.IGNORECASE)]
    return found[0] if len(found) == 1 else (SEVERAL if found else OTHER)


def project(points: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008): [N, D] -> [N, 2]."""
    perplexity = min(30.0, (len(points) - 1) / 3)
    # Identical points have no principal axes, from which t-SNE could start.
    start = "pca" if points.std(axis=0).max() > 1e-7 * max(np.abs(points).max(), 1e-7) else "random"
    return TSNE(perplexity=perplexity, init=start, max_iter=STEPS, random_state=seed).fit_transform(
        points.astype(np.float32)
    )


def scatter(axes: Axes, points: np.ndarray, names: list[str], findings: Sequence[str], title: str) -> None:
    """Draw dots [N, 2], coloured by name: at most eight findings, several of them, others."""
    kinds = [(OTHER, "#c3cad2"), (SEVERAL, "#4a5560"), *zip(findings, COLORS)]
    array = np.array(names)
    for name, color in kinds:
        own = array == name
        if not own.any():
            continue
        axes.scatter(points[own, 0], points[own, 1], s=14, color=color, label=label(name), linewidths=0, alpha=0.85)
    axes.set_title(title)
    axes.set_xlabel("t-SNE 1 (no unit)")
    axes.set_ylabel("t-SNE 2 (no unit)")
    axes.set_xticks([])
    axes.set_yticks([])
