"""Zero-shot classification of the split, as `prior-fast evaluate zero-shot` measures it."""

from typing import Any

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import TEMPLATE, ZERO_SHOT, EvaluationConfig
from prior_fast.evaluation.dataset_config import dataset_config
from prior_fast.evaluation.evaluation_source import prepared_source
from prior_fast.evaluation.prompts import make_prompts
from prior_fast.evaluation.result import EvaluationSet
from prior_fast.evaluation.selection import Chosen, choose
from prior_fast.evaluation.zero_shot import zero_shot
from prior_fast.pictures.config import PictureInputs, PicturesConfig
from prior_fast.pictures.page import Picture, Section
from prior_fast.training.checkpoint import Checkpoint

KEY, TITLE = "zero-shot", "Zero-shot classification"


def zero_shot_section(inputs: PictureInputs) -> Section:
    """ROC curves and the confusion matrix of the classes."""
    encoder, dataset = inputs.encoder, inputs.dataset
    why, config, chosen = _chosen(encoder.checkpoint, dataset, inputs.config)
    if config is None or chosen is None:
        return Section(KEY, TITLE, absent=why)
    result = zero_shot(encoder, EvaluationSet(chosen), config)
    for name, draw in result.pictures.items():
        draw(inputs.out / f"zero-shot-{name}")
    accuracy = result.metrics["accuracy"]
    text = (
        f"{_question(chosen, config, result.facts)} Accuracy {accuracy['value']:.3f}, chance {accuracy['chance']:.3f}. "
        "The numbers are those of `prior-fast evaluate zero-shot` with the same split, seed and prompts."
    )
    text += "".join(f" {note[0].upper()}{note[1:]}." for note in chosen.notes)
    one = config.one_class
    pictures = (
        Picture(
            "zero-shot-roc.png",
            f"{'The finding against its absence' if one else 'Each finding against the others'}. "
            "The dotted line is chance.",
        ),
        Picture(
            "zero-shot-confusion.png",
            f"Number of X-rays, and their share of the {'true answer' if one else 'true finding'}'s X-rays.",
        ),
    )
    auroc = {config.classes[0]: result.metrics["auroc"]} if one else result.metrics["auroc"]
    facts = {
        "images": len(chosen),
        "accuracy": accuracy["value"],
        "chance": accuracy["chance"],
        "auroc": {name: value["value"] for name, value in auroc.items()},
    }
    return Section(KEY, TITLE, text, pictures, facts=facts)


def refuse_prompts(checkpoint: Checkpoint, dataset: PreparedDataset, config: PicturesConfig) -> None:
    """Refuse prompts that can't be used for the classes of the dataset, before anything is drawn.

    Raises:
        UsageError: they can't be used.
    """
    _, evaluation, _ = _chosen(checkpoint, dataset, config)
    if evaluation is not None:
        make_prompts(evaluation)


def _chosen(
    checkpoint: Checkpoint, dataset: PreparedDataset, config: PicturesConfig
) -> tuple[str, EvaluationConfig | None, Chosen | None]:
    """The reason why the section is left out, "" if it is not; its config and its images, None if it is."""
    source = prepared_source(dataset)
    if not source.is_labelled:
        return f"The studies of the {dataset.split} split have no labels.", None, None
    try:
        evaluation = dataset_config(ZERO_SHOT, source, checkpoint, config.zero_shot)
    except UsageError:
        # The settings were checked: it can only be the labels.
        return f"No study of the {dataset.split} split has any class of its labels.", None, None
    try:
        return "", evaluation, choose(source, evaluation, evaluation.per_class)
    except UsageError:
        classes = ", ".join(evaluation.classes)
        return f"No study of the {dataset.split} split has exactly one of {classes}.", None, None


def _question(chosen: Chosen, config: EvaluationConfig, facts: dict[str, Any]) -> str:
    what = "answer" if config.one_class else "finding"
    if config.prompts == TEMPLATE:
        prompt = f'whose prompt, "{config.prompt.replace("{}", "<finding>")}", has the greatest score'
        if config.one_class:
            prompt = "whose prompt, " + " or ".join(f'"{texts[0]}"' for texts in facts["prompts"].values())
            prompt += ", has the greater score"
    else:
        count = len(facts["prompts"][config.classes[0]])
        prompt = (
            f"whose prompts have the greatest mean score (prompts={config.prompts}, {count} of {config.classes[0]})"
        )
    if config.one_class:
        which = f"{chosen.selection.counts()[0]} of {len(chosen)} X-rays are of studies with {config.classes[0]}."
    else:
        which = f"{len(chosen)} X-rays of studies with exactly one of {len(config.classes)} findings."
    return f"{which} The model has seen no label: it chooses the {what} {prompt}."
