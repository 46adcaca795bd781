"""The loss curves of the run that a checkpoint belongs to."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import FAINT, TRAINED, VALIDATED, new_figure, save

KEY, TITLE, FILE = "losses", "Loss curves", "losses.png"
TERMS = (
    *("loss", "global_alignment", "local_image", "local_text", "attention_alignment", "prototype"),
    *("image_reconstruction", "prototype_generation", "prototype_kl", "report_generation"),
)
COLUMNS = 3
SHADES = ("#e3e8ee", "#f6f8fa", "#edf1f5")  # of stages 3, 1 and 2
NARROW = 0.18  # share of the axis below which a stage is named by its number alone
Line = dict[str, Any]


def losses_section(inputs: PictureInputs) -> Section:
    """The weighted sum and each term, in training and on the validation studies."""
    path = find_log(inputs.encoder.checkpoint.path)
    if path is None:
        reason = "The checkpoint is not in the folder of a run with a log.jsonl, so there are no curves to show."
        return Section(KEY, TITLE, absent=reason)
    lines = read_log(path)
    terms = [name for name in TERMS if any(name in line for line in lines)]
    if not terms:
        return Section(KEY, TITLE, absent="The run's log.jsonl holds no loss yet.")
    height = -(-len(terms) // COLUMNS)
    figure = new_figure(10, 2.3 * height + 0.5)
    axes = figure.subplots(height, COLUMNS, squeeze=False).ravel()
    for panel, name in zip(axes, terms):
        draw_term(panel, name, lines)
    for panel in axes[len(terms) :]:
        panel.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    save(figure, inputs.out / FILE)
    steps = max(line["total_steps"] for line in lines)
    text = (
        "Means over the steps between two lines of the log. The terms are unweighted. The loss is their weighted sum, "
        "so it jumps where a stage adds terms. The shades are the stages; a term is shown from the stage on that adds "
        "it. Validation follows each epoch, without noise and masking."
    )
    caption = (
        f"Loss terms over {steps} steps (nats for contrastive and KL terms, mean absolute differences for others)."
    )
    return Section(KEY, TITLE, text, (Picture(FILE, caption),), facts={"steps": steps, "terms": terms})


def find_log(checkpoint: Path) -> Path | None:
    """The log of the run whose folder `checkpoints` holds the checkpoint; None if there is none."""
    folder = checkpoint.resolve().parent
    log = folder.parent / "log.jsonl"
    return log if folder.name == "checkpoints" and log.is_file() else None


def read_log(path: Path) -> list[Line]:
    """The complete lines of a log. While a run is training, its last line may be incomplete."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and {"kind", "stage", "total_steps"} <= line.keys():
            lines.append(line)
    return lines


def draw_term(axes: Axes, name: str, lines: list[Line]) -> None:
    """Draw a term over the steps of the run, with a curve for each stage, because a stage may change the term."""
    curves: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for line in lines:
        if name in line:
            curves[line["kind"], line["stage"]].append((line["total_steps"], line[name]))
    styles = {"train": ("training", TRAINED, "-", ""), "validate": ("validation", VALIDATED, "--", "o")}
    labelled = set()
    for (kind, _), points in curves.items():
        if kind not in styles:
            continue
        label, color, dash, marker = styles[kind]
        x, y = zip(*points)
        marker = marker if len(points) > 1 else "o"
        shown = None if kind in labelled else label
        labelled.add(kind)
        axes.plot(x, y, dash, color=color, marker=marker, markersize=3, linewidth=1.4, label=shown, clip_on=False)
    _mark_stages(axes, name, lines)
    axes.set_title(name.replace("_", " "), pad=14, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel("weighted sum" if name == "loss" else "unweighted")


def stage_spans(lines: list[Line]) -> dict[int, tuple[int, int]]:
    """The first and the last step of each stage in the log, counted over the run; a stage begins where one ends."""
    spans, first = {}, 0
    for stage in sorted({line["stage"] for line in lines}):
        last = max(line["total_steps"] for line in lines if line["stage"] == stage)
        spans[stage], first = (first, last), last
    return spans


def _mark_stages(axes: Axes, name: str, lines: list[Line]) -> None:
    """Shade the stages and name them. The axis begins with the first stage that has the term."""
    spans = {
        stage: span
        for stage, span in stage_spans(lines).items()
        if stage >= min(line["stage"] for line in lines if name in line)
    }
    begin, end = min(first for first, _ in spans.values()), max(last for _, last in spans.values())
    for stage, (first, last) in spans.items():
        axes.axvspan(first, last, color=SHADES[stage % len(SHADES)], linewidth=0, zorder=0)
        share = (last - first) / max(end - begin, 1)
        axes.text(
            (first + last) / 2,
            1.01,
            f"stage {stage}" if share > NARROW else str(stage),
            transform=axes.get_xaxis_transform(),
            fontsize=7.5,
            va="bottom",
            ha="center",
            color=FAINT,
        )
    axes.set_xlim(begin, end)
