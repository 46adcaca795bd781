"""Query distributions of synonymous sentences over the bank (supplement 4.1, figure 2).

A file of sentences has one sentence a line and an empty line between groups; a line that starts with "#" names the
group.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from prior_fast.errors import UsageError
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import TRAINED, new_figure, save
from prior_fast.plotting.words import label, no_formula, one_line, wrap

KEY, TITLE, FILE = "queries", "Synonymous sentences in the bank", "queries.png"
Groups = dict[str, list[str]]
GROUPS: Groups = {
    "Cardiomegaly": ["The heart is enlarged.", "Mild cardiomegaly is present.", "The cardiac silhouette is enlarged."],
    "Right pleural effusion": [
        "There is a small right pleural effusion.",
        "A small pleural effusion is seen on the right.",
        "Small right-sided effusion.",
    ],
    "Clear mediastinum": [
        "The mediastinal contours are clear.",
        "The mediastinum is normal.",
        "Mediastinal and hilar contours are unremarkable.",
    ],
    "No pneumothorax": ["There is no pneumothorax.", "No pneumothorax is seen.", "No evidence of pneumothorax."],
}


def queries_section(inputs: PictureInputs) -> Section:
    """For each group of sentences, the weights of each sentence over the prototypes."""
    groups = read_groups(Path(inputs.config.sentences)) if inputs.config.sentences else GROUPS
    if inputs.no_bank:
        return Section(KEY, TITLE, absent=inputs.no_bank)
    try:
        weights = {name: query_weights(inputs, sentences) for name, sentences in groups.items()}
    except UsageError:
        if inputs.config.sentences:
            raise
        reason = "The built-in sentences have no token of this model's tokenizer: give others with sentences=FILE."
        return Section(KEY, TITLE, absent=reason)
    lines = sum(map(len, groups.values()))
    figure = new_figure(10, 0.45 * lines + 0.6 * len(groups) + 0.3)
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=[len(s) for s in groups.values()])
    for panel, (name, sentences) in zip(axes[:, 0], groups.items()):
        draw_group(panel, name, sentences, weights[name])
    axes[-1, 0].set_xlabel("prototype (its number in the bank)")
    save(figure, inputs.out / FILE)
    agreement = {name: agreeing(rows) for name, rows in weights.items()}
    text = (
        "Each line is a sentence. The bars are its weights over the prototypes: the softmax of the inner products at "
        f"the temperature of the checkpoint ({inputs.encoder.tau:.3g}), without noise. A bar of full height is a "
        "weight of 1. The number is that of the strongest prototype, with its weight. Sentences with the same meaning "
        "should read the same prototypes."
    )
    caption = "Sentences of a group that read the same prototype: " + ", ".join(
        f"{one_line(name)} {count} of {len(groups[name])}" for name, count in agreement.items()
    )
    facts = {"same_prototype": {name: [count, len(groups[name])] for name, count in agreement.items()}}
    return Section(KEY, TITLE, text, (Picture(FILE, f"{caption}."),), facts=facts)


def read_groups(path: Path) -> Groups:
    """Groups of sentences from a file.

    Raises:
        UsageError: the file can't be read or has no sentence.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"sentences={path} can't be read: {reason}") from None
    groups: Groups = {}
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        sentences = [line for line in lines if not line.startswith("#")]
        title = next((line.lstrip("# ") for line in lines if line.startswith("#")), "")
        if sentences:
            groups[title or f"group {len(groups) + 1}"] = sentences
    if not groups:
        raise UsageError(f"sentences={path} has no sentence: write one a line, with an empty line between groups")
    return groups


@torch.inference_mode()
def query_weights(inputs: PictureInputs, sentences: list[str]) -> np.ndarray:
    """softmax(x E^T / tau) of each sentence x: float64 [S, K].

    Raises:
        UsageError: a sentence has no token.
    """
    try:
        embedded = inputs.encoder.texts([[sentence] for sentence in sentences]).sentences
    except ValueError as error:
        raise UsageError(f"sentences={inputs.config.sentences}: {error}") from None
    logits = embedded.double() @ inputs.encoder.model.sentence_bank.embed.weight.double().T
    return torch.softmax(logits / inputs.encoder.tau, dim=-1).cpu().numpy()


def agreeing(weights: np.ndarray) -> int:
    """The greatest number of sentences of a group [S, K] that share their strongest prototype."""
    return int(np.bincount(weights.argmax(axis=1)).max())


def draw_group(axes: Axes, name: str, sentences: list[str], weights: np.ndarray) -> None:
    """Draw bars of each sentence's weights, a line for each sentence."""
    prototypes = np.arange(weights.shape[1])
    for line, row in enumerate(weights):
        base = len(weights) - 1 - line
        axes.axhline(base, color="#dfe3e8", linewidth=0.8, zorder=0)
        visible = row > 0.005
        axes.vlines(prototypes[visible], base, base + 0.8 * row[visible], color=TRAINED, linewidth=2)
        best = int(row.argmax())
        side = "right" if best > 0.85 * len(prototypes) else "left"
        shift = -5 if side == "right" else 5
        axes.annotate(
            f"{best}  ({row[best]:.2f})",
            (best, base + 0.45),
            (shift, 0),
            textcoords="offset points",
            ha=side,
            va="center",
        )
    axes.set_xlim(-1, len(prototypes))
    axes.set_ylim(-0.15, len(weights))
    axes.set_yticks([len(weights) - 0.6 - line for line in range(len(weights))])
    axes.set_yticklabels([no_formula(wrap(sentence, 40, lines=2)) for sentence in sentences], color="#1c2430")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(label(name), loc="left", fontweight="bold")
