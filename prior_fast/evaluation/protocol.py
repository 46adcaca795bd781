"""A description of what was measured and how, so that the numbers can be compared with others."""

from typing import Any

from prior_fast.config import to_dict
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.config import GENERATED, OWN, RETRIEVAL, TEMPLATE, ZERO_SHOT, EvaluationConfig
from prior_fast.evaluation.dataset_config import BY_CLASS, BY_STUDY
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.result import EvaluationSet
from prior_fast.radiology.labels import UNCERTAIN_IS_POSITIVE

CANDIDATES = {
    ZERO_SHOT: "the classes, for each image",
    RETRIEVAL: "image to text: the texts, for each image; text to image: the images, for each text",
}
PRIOR_SCORE = "softmax(exp(logit_scale) * cosine) + local_weight * softmax(mean attention weight, both ways)"
GLORIA_SCORE = (
    "(cosine + local_weight * mean attention weight, both ways) / (1 + local_weight), pooled over the prompts of each "
    "class, then standardized for each class over the images"
)


def protocol(task: str, config: EvaluationConfig, encoder: Encoder, evaluation_set: EvaluationSet) -> dict[str, Any]:
    """The settings and the conventions of a task."""
    unused = {
        "batch_size",
        "device",
        "pictures",
        "verify",
        *(key for name, keys in OWN.items() if name != task for key in keys),
    }
    if config.prompts != TEMPLATE:
        unused.add("prompt")
    if config.prompts != GENERATED:
        unused.add("prompts_per_class")
    if not config.one_class:
        unused.add("negative_prompt")
    if task == RETRIEVAL:
        unused |= set(BY_CLASS if config.by == "study" else BY_STUDY)
    gloria = config.score == "gloria"
    facts = {
        **{name: value for name, value in to_dict(config).items() if name not in unused},
        # The setting `score` is called "convention" here; "score" is its formula.
        **({"convention": config.score} if task == ZERO_SHOT else {}),
        "score": GLORIA_SCORE if gloria else PRIOR_SCORE,
        **({} if gloria else {"softmax_over": CANDIDATES[task]}),
        "selection": _selection(config, config.image_ids),
        "image": "the first frontal image of each study"
        if isinstance(evaluation_set.images.source.dataset, PreparedDataset)
        else "each image of the list",
        "bank": _bank(encoder),
    }
    facts |= _retrieval(config, evaluation_set) if task == RETRIEVAL else _zero_shot(config)
    if encoder.model.config.attention == "softmax":
        facts["local_score"] = "left out: the mean weight of softmax attention is the same for all images"
    if not encoder.aligns_locally:
        facts["local_score"] = "left out: model.use_local_alignment=false"
        facts |= {"pointing_game": "left out: model.use_local_alignment=false"} if task == ZERO_SHOT else {}
    return facts


def _bank(encoder: Encoder) -> str:
    if encoder.uses_bank:
        return f"read without noise, tau {encoder.tau:.4g}"
    return f"not read: {'not trained in stage 1' if encoder.model.config.use_bank else 'model.use_bank=false'}"


def _selection(config: EvaluationConfig, ids: str) -> str:
    if ids:
        return f"named by {ids}"
    if config.by == "study":
        return f"at most {config.studies} of all studies" if config.studies else "all studies"
    if config.one_class:
        also = " or uncertain" if config.classes[0] in UNCERTAIN_IS_POSITIVE else ""
        return f"{config.classes[0]} is 1{also} in the labels, or not; blank counts as absent"
    uncertain = [name for name in config.classes if name in UNCERTAIN_IS_POSITIVE]
    return (
        "exactly one of the classes is positive; blank counts as absent, uncertain as present for "
        f"{', '.join(uncertain) or 'no class'} and as absent for the others (the rule of CheXpert 5x200)"
    )


def _zero_shot(config: EvaluationConfig) -> dict[str, Any]:
    facts = {"max_f1": "over all thresholds, chosen on the images that it is measured on"}
    if config.one_class:
        facts["chance"] = (
            "accuracy and macro F1: of always giving the more frequent answer; F1 and max F1: of always answering yes"
        )
        facts["positive_score"] = "the score of the positive answer less that of the negative one"
    return facts


def _retrieval(config: EvaluationConfig, evaluation_set: EvaluationSet) -> dict[str, Any]:
    apart = evaluation_set.reports is not evaluation_set.images
    within = config.rank_within
    return {
        **({"selection_of_reports": _selection(config, config.report_ids)} if apart else {}),
        "ranked": f"inside batches of {within} in the order of selection_images.csv and selection_reports.csv, each "
        "metric the mean over the batches"
        if within
        else "over all candidates",
        "ties": "equal scores count as the mean over all orders among them",
        "class_level": "left out: by=study"
        if config.by == "study"
        else "a hit is a candidate of the query's class" + ("" if apart else ", the query's own study included"),
        "instance_level": "a hit is the query's own study; identical reports are one text",
    }
