"""Zero-shot classification of the split, as `prior-fast evaluate zero-shot` measures it."""

from prior_fast.errors import UsageError
from prior_fast.evaluation.config import TEMPLATE, evaluation_config
from prior_fast.evaluation.evaluation_source import prepared_source
from prior_fast.evaluation.result import EvaluationSet
from prior_fast.evaluation.selection import choose
from prior_fast.evaluation.zero_shot import zero_shot
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section

KEY, TITLE = "zero-shot", "Zero-shot classification"


def zero_shot_section(inputs: PictureInputs) -> Section:
    """ROC curves and the confusion matrix of the five classes."""
    encoder = inputs.encoder
    config = evaluation_config(
        inputs.config.zero_shot,
        encoder.checkpoint.config.preset,
        "zero-shot",
        aligns_locally=encoder.aligns_locally,
    )
    try:
        chosen = choose(prepared_source(inputs.dataset), config, config.per_class)
    except UsageError:
        reason = f"No study of the {inputs.dataset.split} split has exactly one of {', '.join(config.classes)}."
        return Section(KEY, TITLE, absent=reason)
    result = zero_shot(encoder, EvaluationSet(chosen), config)
    for name, draw in result.pictures.items():
        draw(inputs.out / f"zero-shot-{name}")
    metrics = result.metrics
    if config.prompts == TEMPLATE:
        prompt = f'whose prompt, "{config.prompt.replace("{}", "<finding>")}", has the greatest score'
    else:
        count = len(result.facts["prompts"][config.classes[0]])
        prompt = (
            f"whose prompts have the greatest mean score (prompts={config.prompts}, {count} of {config.classes[0]})"
        )
    accuracy = metrics["accuracy"]
    text = (
        f"{len(chosen)} X-rays of studies with exactly one of {len(config.classes)} findings. The model has seen no "
        f"label: it chooses the finding {prompt}. Accuracy {accuracy['value']:.3f}, chance {accuracy['chance']:.3f}. "
        "The numbers are those of `prior-fast evaluate zero-shot` with the same split, seed and prompts."
    )
    pictures = (
        Picture("zero-shot-roc.png", "Each finding against the others. The dotted line is chance."),
        Picture("zero-shot-confusion.png", "Number of X-rays, and their share of the true finding's X-rays."),
    )
    facts = {
        "images": len(chosen),
        "accuracy": accuracy["value"],
        "chance": accuracy["chance"],
        "auroc": {name: value["value"] for name, value in metrics["auroc"].items()},
    }
    return Section(KEY, TITLE, text, pictures, facts=facts)
