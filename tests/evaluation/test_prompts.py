"""Prompts from a template, from word lists and from a file."""

import json
from pathlib import Path

import pytest

from prior_fast.errors import UsageError
from prior_fast.evaluation.config import EvaluationConfig, evaluation_config
from prior_fast.evaluation.prompt_words import WORDS, generated_prompts
from prior_fast.evaluation.prompts import make_prompts
from prior_fast.radiology.labels import FIVE_CLASSES

TWO = ("Edema", "Cardiomegaly")


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_the_template_gives_one_prompt_a_class() -> None:
    prompts = make_prompts(EvaluationConfig(prompt="{} can be seen"))
    assert prompts.texts == [f"{name} can be seen" for name in FIVE_CLASSES]
    assert prompts.owner.tolist() == [0, 1, 2, 3, 4]


def test_one_class_is_asked_both_ways() -> None:
    prompts = make_prompts(EvaluationConfig(classes=("Pneumonia",)))
    assert prompts.texts == ["Pneumonia is observed", "No Pneumonia is observed"]
    free = make_prompts(EvaluationConfig(classes=("Pneumonia",), negative_prompt="The lungs are clear"))
    assert free.by_answer(("yes", "no")) == {"yes": ["Pneumonia is observed"], "no": ["The lungs are clear"]}


@pytest.mark.parametrize("name", WORDS)
def test_generated_prompts_differ_and_follow_the_seed(name: str) -> None:
    first, again, other = (generated_prompts(name, 5, seed) for seed in (0, 0, 1))
    assert first == again != other and len(set(first)) == 5
    severities, kinds, places = WORDS[name]
    for text in first:
        assert any(text == " ".join(w for w in (s, k, p) if w) for s in severities for k in kinds for p in places)
    everything = generated_prompts(name, 10**6, 0)
    assert len(set(everything)) == len(everything) == len(severities) * len(kinds) * len(places)


def test_glorias_convention_comes_with_its_prompts() -> None:
    config = evaluation_config(["score=gloria", "prompts_per_class=3"], "released")
    assert (config.prompt_pooling, config.prompts, config.local_weight) == ("max", "generated", 1.0)
    prompts = make_prompts(config)
    assert prompts.owner.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    changed = evaluation_config(["score=gloria", "prompt_pooling=mean", "prompts=template", "local_weight=0"])
    assert (changed.prompt_pooling, changed.prompts, changed.local_weight) == ("mean", "template", 0.0)


def test_a_file_of_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", {"Edema": ["a", "b"], "Cardiomegaly": {"positive": ["c"]}})
    prompts = make_prompts(EvaluationConfig(classes=("Cardiomegaly", "Edema"), prompts=path))
    assert prompts.texts == ["c", "a", "b"] and prompts.owner.tolist() == [0, 1, 1]
    path = write(tmp_path / "n.json", {"Edema": {"positive": ["a"], "negative": ["x", "y"]}})
    prompts = make_prompts(EvaluationConfig(classes=("Edema",), prompts=path))
    assert prompts.texts == ["a", "x", "y"] and prompts.owner.tolist() == [0, 1, 1]
    path = write(tmp_path / "m.json", {"Edema": ["a"]})
    assert make_prompts(EvaluationConfig(classes=("Edema",), prompts=path)).texts == ["a", "No Edema is observed"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not valid JSON"),
        ([1], "must be {"),
        ({"Edma": ["a"], "Cardiomegaly": ["b"]}, "unknown class 'Edma': did you mean 'Edema'?"),
        ({"Edema": ["a"]}, "has no prompt for Cardiomegaly"),
        ({"Edema": [], "Cardiomegaly": ["b"]}, "positive of Edema must be a list of one prompt or more"),
        ({"Edema": "a", "Cardiomegaly": ["b"]}, "positive of Edema must be a list"),
        ({"Edema": [" "], "Cardiomegaly": ["b"]}, "positive of Edema must be a list"),
        ({"Edema": {"positve": ["a"]}, "Cardiomegaly": ["b"]}, "'positve': did you mean 'positive'?"),
        ({"Edema": {"negative": ["a"]}, "Cardiomegaly": ["b"]}, "Edema has no positive prompt"),
        ({"Edema": {"positive": ["a"], "negative": ["n"]}, "Cardiomegaly": ["b"]}, "for datasets with one class"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(content: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.json", content)
    with pytest.raises(UsageError) as error:
        make_prompts(EvaluationConfig(classes=TWO, prompts=path))
    assert message in str(error.value)


def test_a_missing_file_and_a_class_without_words() -> None:
    with pytest.raises(UsageError, match=r"prompts=none\.json: can't be read .* template or generated"):
        make_prompts(EvaluationConfig(prompts="none.json"))
    with pytest.raises(UsageError, match="no words for 'Fracture'"):
        make_prompts(EvaluationConfig(classes=("Fracture", "Edema"), prompts="generated"))
