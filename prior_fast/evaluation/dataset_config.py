"""The settings of an evaluation, completed by what its dataset has: labels, and which of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import RETRIEVAL, ZERO_SHOT, EvaluationConfig, evaluation_config, keys_of
from prior_fast.evaluation.evaluation_source import EvaluationSource, takes_all
from prior_fast.radiology.labels import FIVE_CLASSES, present
from prior_fast.spelling import nearest
from prior_fast.training.checkpoint import Checkpoint

# The settings of retrieval that only one of the two levels uses.
BY_CLASS = ("classes", "per_class", "reports", "reports_split", "reports_per_class", "report_ids")
BY_STUDY = ("studies",)


def dataset_config(
    task: str, source: EvaluationSource, checkpoint: Checkpoint, words: Sequence[str]
) -> EvaluationConfig:
    """The config of "zero-shot" or "retrieval" on a dataset, whose `classes` and `by` are decided.

    Without the setting, the classes are the five of CheXpert 5x200 if the dataset has them, else all its labels that
    are positive somewhere. `by=auto` becomes "class", or "study" if there are not two classes.

    Raises:
        UsageError: a setting can't be used with this dataset.
    """
    defaults, given = default_classes(source), keys_of(words)
    config = evaluation_config(
        words,
        checkpoint.config.preset,
        task,
        defaults,
        max(1, source.dataset.info["images"]) if takes_all(source.dataset.info) else EvaluationConfig.per_class,
        checkpoint.structure.use_local_alignment,
    )
    if task == RETRIEVAL:
        config = replace(config, by=_level(config, source, defaults, given))
        if config.by == "study":
            return replace(config, classes=())
    if not source.is_labelled:
        raise UsageError(no_labels(source, task))
    config = replace(config, classes=tuple(known_class(name, source) for name in config.classes))
    if not config.image_ids:
        _refuse_without_positives(config.classes, source, "classes" in given)
    return config


def default_classes(source: EvaluationSource) -> tuple[str, ...]:
    """The five classes of CheXpert 5x200 if the dataset has them, else its labels that an image or study has."""
    if set(FIVE_CLASSES) <= set(source.columns):
        return FIVE_CLASSES
    if len(source.columns) == 1:
        return source.columns
    return tuple(name for name, count in positives(source).items() if count)


def positives(source: EvaluationSource) -> dict[str, int]:
    """For each label the number of images or studies that have it."""
    return dict(zip(source.columns, present(source.labels, source.columns, source.columns).sum(axis=0).tolist()))


def known_class(name: str, source: EvaluationSource) -> str:
    """The label of the dataset that `name` means; upper and lower case do not matter.

    Raises:
        UsageError: there is none; the message names the nearest one and all.
    """
    own = {label.lower(): label for label in reversed(source.columns)}
    key = name.strip()
    if key in source.columns:
        return key
    if key.lower() in own:
        return own[key.lower()]
    wanted = f"classes: {source.root} has no class {key!r}"
    if len(source.columns) == 1:
        raise UsageError(f"{wanted}, the dataset has {source.columns[0]} alone; leave it out")
    hint = nearest(key, source.columns) or nearest(key.title(), source.columns) or "."
    raise UsageError(f"{wanted}{hint} It has {', '.join(source.columns)}")


def no_labels(source: EvaluationSource, task: str) -> str:
    """Why a task by classes can't be done on studies without labels, and what to do."""
    kind = "no labels" if not source.columns else f"no label for any of the {source.where}"
    way = {
        ZERO_SHOT: "`prior-fast evaluate retrieval` needs none",
        RETRIEVAL: "leave by=class and the settings of classes out",
    }[task]
    return (
        f"{source.root} has {kind}, which {task} by classes compares with: {way}; or prepare the table with --labels "
        "(`prior-fast prepare table`), or give a labelled dataset"
    )


def why_by_study(source: EvaluationSource) -> str:
    """Why retrieval is by study without the setting `by`; "" if the labels would give two classes."""
    if not source.is_labelled:
        return f"the {source.where} have no labels"
    classes, counts = default_classes(source), positives(source)
    there = [name for name in classes if counts[name]]
    if len(there) >= (1 if classes == FIVE_CLASSES else 2):
        return ""
    return f"the {source.where} have {f'one class, {there[0]}' if there else 'none of the classes of their labels'}"


def _level(
    config: EvaluationConfig, source: EvaluationSource, defaults: Sequence[str], given: Sequence[str]
) -> Literal["class", "study"]:
    """The level of retrieval: by=class or by=study."""
    own_reports = isinstance(source.dataset, PreparedDataset)
    by_class = [key for key in BY_CLASS if key in given]
    why = why_by_study(source)
    by = config.by
    if by == "auto":
        by = "study" if own_reports and why and not by_class else "class"
    if by == "study":
        if not own_reports:
            raise UsageError(f"by=study: {source.root} has no reports; give a dataset with reports, or by=class")
        if by_class:
            raise UsageError(f"{by_class[0]} is not used with by=study, which takes all studies: leave it out")
        return "study"
    for key in BY_STUDY:
        if key in given:
            raise UsageError(f"{key} is not used with by=class: give by=study, or per_class")
    if source.is_labelled and len(config.classes) < 2:
        if not own_reports and len(source.columns) == 1:
            raise UsageError(
                f"{source.root} has one class, {defaults[0]}: retrieval needs several classes; give chexpert5x200"
            )
        raise UsageError(f"classes={','.join(config.classes)}: retrieval by class needs at least two; or give by=study")
    return "class"


def _refuse_without_positives(classes: Sequence[str], source: EvaluationSource, named: bool) -> None:
    """Refuse classes that the user named and nothing has, and a dataset that has none of its classes."""
    counts = positives(source)
    missing = [name for name in classes or source.columns if not counts[name]]
    if missing and (named or len(missing) == len(classes or source.columns)):
        there = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        raise UsageError(
            f"none of the {source.where} has {' or '.join(missing)}; they have {there or 'none of the labels'}: name "
            "other classes=... or another --split"
        )
