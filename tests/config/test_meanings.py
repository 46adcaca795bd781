"""Every setting of every config says what it means, in one place beside the field, and is on a page."""

import copy
import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main
from prior_fast.cli.pictures import PicturesSettings
from prior_fast.config import PRESETS, RunConfig, apply_overrides, preset
from prior_fast.config.describe import describe
from prior_fast.config.overrides import field_names
from prior_fast.data.labelled_dataset import PERCENTAGES
from prior_fast.downstream import config as fine_tuned
from prior_fast.downstream.settings.base import TRAINING_PERCENTAGES
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.learned_config import LearnedConfig
from prior_fast.measure.page.fill import fill
from prior_fast.measure.page.settings import task_configs
from prior_fast.pictures.config import PicturesConfig

CONFIGS: dict[str, Any] = {
    **{name: make() for name, make in PRESETS.items()},
    **{task: fine_tuned.settings_of(task).CONFIG() for task in fine_tuned.TASKS},
    "evaluation": EvaluationConfig(),
    "learned": LearnedConfig(),
    "pictures": PicturesConfig(),
    "pictures of the command": PicturesSettings(),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_has_a_meaning(name: str) -> None:
    described = describe(CONFIGS[name])
    assert [each.name for each in described] == list(field_names(CONFIGS[name]))
    for each in described:
        assert len(each.meaning.split()) >= 2, f"{each.name} has no meaning"
        assert not each.meaning.endswith(".") and "\n" not in each.meaning, each.name


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_shown_of_a_setting_is_what_it_takes(name: str) -> None:
    for each in describe(CONFIGS[name]):
        assert apply_overrides(CONFIGS[name], [each.word]) == CONFIGS[name]
        for choice in each.choices:
            apply_overrides(CONFIGS[name], [f"{each.name}={choice}"])
        if each.choices:
            with pytest.raises(UsageError, match="choose"):
                apply_overrides(CONFIGS[name], [f"{each.name}=nonsense" if "percent" not in each.name else "percent=7"])


def test_kinds_are_told_in_words() -> None:
    kinds = {each.name: each.kind for each in describe(preset("paper"))}
    assert kinds["batch_size"] == "whole number" and kinds["learning_rate"] == "3 numbers"
    assert kinds["precision"] == "auto|bf16|fp32" and kinds["data.flip"] == "true|false"
    assert kinds["model.image.depths"] == "whole numbers with commas" and kinds["data.jpegs"] == "text"


def test_meanings_leave_the_configs_as_they_were() -> None:
    config = preset("tiny")
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert dataclasses.replace(config, seed=3).seed == 3 and RunConfig.batch_size == 128
    assert "meaning" not in str(dataclasses.asdict(config))


def test_percentages_are_those_of_the_lists() -> None:
    assert TRAINING_PERCENTAGES == PERCENTAGES


@dataclasses.dataclass(frozen=True)
class _Told:
    """Says it in the docstring.

    Attributes:
        first, second: both are meant
            by these words.
        third: another one.
    """

    first: int = 1
    second: int = 2
    third: int = 3
    fourth: int = 4


def test_a_docstring_can_have_the_meanings() -> None:
    meanings = [each.meaning for each in describe(_Told())]
    assert meanings == ["both are meant by these words", "both are meant by these words", "another one", ""]


def test_the_page_has_meanings_and_choices() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text(encoding="utf-8")
    for each in describe(preset("paper")):
        (row,) = re.findall(rf"^\| `{re.escape(each.name)}` \| (.+?) \|", page, re.MULTILINE)
        assert each.meaning in row and all(f"`{choice}`" in row for choice in each.choices)


@pytest.mark.parametrize("task", task_configs())
def test_a_page_can_have_the_settings_of_a_task(task: str) -> None:
    text = fill(f"<!-- table task-settings {task} -->\n<!-- end of table -->", Path(), "page")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) > 5 and all(meaning for _, meaning, _ in rows)
    assert ("score" in [name for name, _, _ in rows]) == (task == "zero-shot")
    with pytest.raises(UsageError, match="unknown task 'zeroshot': did you mean 'zero-shot'"):
        fill("<!-- table task-settings zeroshot -->\n<!-- end of table -->", Path(), "page")


def listed(capsys: pytest.CaptureFixture, *words: str) -> list[str]:
    assert main(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_the_list_is_grouped_and_has_values_types_sources_and_meanings(capsys: pytest.CaptureFixture) -> None:
    lines = listed(capsys, "train", "--settings")
    assert "model.bank:" in lines and "data:" in lines
    at = next(number for number, line in enumerate(lines) if line.startswith("precision="))
    assert re.fullmatch(r"precision=auto +# auto\|bf16\|fp32; ours", lines[at])
    assert lines[at + 1] == "    precision of a step; auto: bf16 where the hardware has it, fp32 elsewhere"
    assert max(map(len, lines)) <= 100 and not any("\x1b" in line for line in lines)


def test_the_list_can_be_of_a_part_or_a_word(capsys: pytest.CaptureFixture) -> None:
    names = [line.partition("=")[0] for line in listed(capsys, "train", "--settings", "model.bank") if "  # " in line]
    assert names == [name for name in field_names(preset("paper")) if "model.bank" in name]
    names = [line.partition("=")[0] for line in listed(capsys, "train", "--settings", "dropout") if "  # " in line]
    assert "model.text.dropout" in names and len(names) == 3
    # A setting after --settings is a setting.
    assert any(line.startswith("batch_size=7 ") for line in listed(capsys, "train", "--settings", "batch_size=7"))
    assert main(["train", "--settings", "model.bnak.prototypes"]) == 2
    assert "did you mean 'model.bank.prototypes'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "has", "lacks"),
    [
        ("evaluate zero-shot", "prompt_pooling", "cutoffs"),
        ("evaluate retrieval", "cutoffs", "prompt_pooling"),
        ("evaluate generation", "bank_studies", "context"),
        ("evaluate bank", "context", "bank_studies"),
        ("evaluate classification", "sweep", "frozen"),
        ("evaluate segmentation", "decoder_channels", "sweep"),
        ("evaluate detection", "proposals", "sweep"),
        ("pictures", "count", "percent"),
        ("bench train", "batch_size", "percent"),
        ("reproduce", "zero-shot.per_class", "zero-shot.cutoffs"),
    ],
)
def test_each_command_lists_its_own(command: str, has: str, lacks: str, capsys: pytest.CaptureFixture) -> None:
    lines = listed(capsys, *command.split(), "--settings")
    names = {line.strip("'").partition("=")[0] for line in lines if "  # " in line}
    assert has in names and lacks not in names


def test_a_changed_value_says_so(capsys: pytest.CaptureFixture) -> None:
    lines = listed(capsys, "evaluate", "zero-shot", "--settings", "prompts", "prompts=generated")
    assert any(re.fullmatch(r"prompts=generated +# text; changed from template", line) for line in lines)
    lines = listed(capsys, "evaluate", "zero-shot", "--settings", "negative")
    assert lines[0].startswith("'negative_prompt=No {} is observed'"), "quoted for a shell"
