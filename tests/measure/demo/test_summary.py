"""`prior-fast bench demo` says in five lines what was reached, and what is no better than chance."""

import json
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main
from prior_fast.measure.demo.summary import lines
from tests.measure.demo.results import CHECKPOINT, ceiling, results, write

LINES = [
    "zero-shot: 0.86 of the findings named (chance 0.50); AUROC 0.93 to 0.99 (chance 0.50)",
    "retrieval: 0.88 of an image's first five reports share its finding (chance 0.20), "
    "0.90 of a report's first five images (chance 0.20)",
    "attention: the maximum lies on the finding in 0.31 of the images (chance 0.06); "
    "weights inside are 3.40 times those outside (chance 1.00)",
    "reconstruction: 0.80 of the findings are closer to the image with the report's sentences on the finding than "
    "without (chance 0.50; without as many other sentences 0.52)",
    "prototypes: 0.70 of the sentences name the finding that is most frequent in their prototype (chance 0.36; k-means "
    "0.65); generated findings: F1 0.60 (chance 0.22; from the report itself 0.75); 0.45 of the sentences' "
    "findings predicted for them (chance 0.15)",
]


def test_five_lines_and_the_same_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, results())
    assert main(["bench", "demo", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == LINES
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["lines"] == LINES and summary["open"] == [] and summary["ceiling"] is None
    values = {figure["key"]: figure["value"] for figure in summary["figures"]}
    assert values == {
        **{"accuracy": 0.86, "auroc Atelectasis": 0.93, "auroc Edema": 0.99, "image_to_text": 0.88},
        **{"text_to_image": 0.9, "hit_rate": 0.31, "inside_over_outside": 3.4, "reconstruction": 0.8},
        **{"purity": 0.7, "f1": 0.6, "matched": 0.45},
    }


def test_the_ceiling_stands_beside_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, results())
    path = tmp_path / "ceiling.json"
    path.write_text(json.dumps(ceiling()))
    assert main(["bench", "demo", str(tmp_path), "--ceiling", str(path)]) == 0
    first, second, *others = capsys.readouterr().out.splitlines()
    assert first == (
        "zero-shot: 0.86 of the findings named (chance 0.50; with labels 0.98); AUROC 0.93 to 0.99 (chance 0.50; with "
        "labels 0.97 to 1.00)"
    )
    assert "(chance 0.20; with labels 0.95), 0.90" in second and second.endswith("(chance 0.20; with labels 0.96)")
    assert others == LINES[2:]


@pytest.mark.parametrize(
    ("line", "change", "text"),
    [
        # 200 images: the standard deviation of the accuracy by chance is 0.035.
        (0, {"metrics": {"accuracy": {"value": 0.56}}}, "zero-shot accuracy is no better than chance"),
        (0, {"metrics": {"accuracy": {"value": 0.58}}}, ""),
        # That of the AUROC is 0.041.
        (0, {"metrics": {"auroc": {"Edema": {"value": 0.57}}}}, "AUROC of Edema is no better than chance"),
        (0, {"metrics": {"auroc": {"Edema": {"value": 0.59}}}}, ""),
        (
            1,
            {"metrics": {"text_to_image": {"class_level": {"precision_at_5": {"value": 0.2}}}}},
            "precision at 5 from text to image is no better than chance",
        ),
        (2, {"pointing_game": {"overall": {"hit_rate": 0.07}}}, "pointing game is no better than chance"),
        (
            2,
            {"pointing_game": {"overall": {"attention_inside_over_outside": 1.004}}},
            "ratio of weights inside to outside is no better than chance",
        ),
        (
            2,
            {"pointing_game": {"overall": {"hit_rate": 0.0, "attention_inside_over_outside": 0.9}}},
            "pointing game and ratio of weights inside to outside are no better than chance",
        ),
    ],
)
def test_what_chance_explains_is_open(line: int, change: dict[str, Any], text: str) -> None:
    made = results()
    task = ("zero-shot", "retrieval", "zero-shot")[line]
    merge(made[task], change)
    found = lines(made, None)[line]
    assert "; ".join(found.open) == text
    assert str(found).endswith(f"; open: {text}") == bool(text)


def test_a_reconstruction_that_gains_as_much_from_other_sentences_is_open() -> None:
    made = results()
    summary = made["generation"]["metrics"]["reconstruction"]["overall"]
    summary["without_others"]["true_is_better"]["value"] = 0.81
    assert lines(made, None)[3].open == ["reconstruction is no better than without as many other sentences"]
    summary["without_finding"]["true_is_better"]["value"] = 0.54
    assert lines(made, None)[3].open == ["reconstruction is no better than chance"]


def test_generated_findings_near_the_chance_of_another_image_are_open() -> None:
    made = results()
    overall = made["generation"]["metrics"]["generated_prototypes"]["overall"]
    # 80 predictions that are right by chance with 0.25: F1 varies by 2 * 3.87 / 180.
    overall["f1"]["value"] = 0.22 + 1.9 * 0.043
    assert lines(made, None)[4].open == ["F1 of generated findings is no better than chance"]
    overall["f1"]["value"] = 0.22 + 2.1 * 0.043
    assert lines(made, None)[4].open == []
    overall["f1"]["value"] = None
    found = lines(made, None)[4]
    assert found.open == ["F1 of generated findings is not defined"] and "F1 - (chance" in found.text


def test_findings_that_are_predicted_for_any_sentence_are_open() -> None:
    made = results()
    matched = made["generation"]["metrics"]["generated_prototypes"]["matched"]
    # The standard deviation of 300 guesses that are right with 0.15 is 0.0206.
    matched["value"] = 0.15 + 1.9 * 0.0206
    assert lines(made, None)[4].open == ["share of findings predicted for their sentences is no better than chance"]
    matched["value"] = 0.15 + 2.1 * 0.0206
    assert lines(made, None)[4].open == []
    matched.update(stated=0, value=None, chance=None)
    assert lines(made, None)[4].open == ["share of findings predicted for their sentences is not defined"]


def test_parts_that_were_not_measured_say_why() -> None:
    made = results()
    del made["zero-shot"]["pointing_game"]
    assert str(lines(made, None)[2]) == "attention: not measured: the dataset has no annotations"
    made["zero-shot"]["protocol"]["pointing_game"] = "left out: model.use_local_alignment=false"
    assert str(lines(made, None)[2]) == "attention: not measured: model.use_local_alignment=false"
    made["generation"]["metrics"]["reconstruction"] = {"measured": 0, "skipped": {}, "note": "nothing annotated"}
    assert str(lines(made, None)[3]) == "reconstruction: not measured: nothing annotated"
    made["generation"]["metrics"]["generated_prototypes"] = {"note": "left out: model.use_bank=false"}
    assert str(lines(made, None)[4]).endswith("; generated findings not measured: model.use_bank=false")


@pytest.mark.parametrize("task", ["zero-shot", "retrieval", "generation", "bank"])
def test_a_missing_result_names_the_command_that_makes_it(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, results())
    (tmp_path / task / "metrics.json").unlink()
    assert main(["bench", "demo", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "metrics.json is missing" in error and error.count("\n") == 1
    assert f"`prior-fast evaluate {task} --checkpoint RUN --data DATA --out {tmp_path / task}`" in error
    assert not (tmp_path / "summary.json").exists()


def test_results_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def message() -> str:
        assert main(["bench", "demo", str(tmp_path)]) == 2
        return capsys.readouterr().err

    made = results()
    write(tmp_path, {**made, "bank": {**made["bank"], "checkpoint": {**CHECKPOINT, "used": "step-00000004"}}})
    assert "zero-shot is of the checkpoint step-00000009 of preset tiny, and bank of step-00000004" in message()
    write(tmp_path, {**made, "bank": {**made["bank"], "task": "retrieval"}})
    assert "bank/metrics.json is a result of retrieval, not of bank" in message()
    (tmp_path / "bank/metrics.json").write_text("{")
    assert "can't be read as a result of bank" in message()
    del made["retrieval"]["metrics"]["image_to_text"]["class_level"]["precision_at_5"]
    write(tmp_path, made)
    assert "has other metrics than the demo's (KeyError('precision_at_5'))" in message()


def test_a_wrong_ceiling_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, results())
    path = tmp_path / "ceiling.json"
    for text, message in (
        (None, "is missing: make it with `prior-fast bench ceiling --data DATA --like RUN --out"),
        ("{", "can't be read"),
        ('{"kind": "demo"}', "is no file of `prior-fast bench ceiling`"),
        ("[]", "is no file of `prior-fast bench ceiling`"),
    ):
        if text is not None:
            path.write_text(text)
        assert main(["bench", "demo", str(tmp_path), "--ceiling", str(path)]) == 2
        assert message in capsys.readouterr().err


def merge(report: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            merge(report[key], value)
        else:
            report[key] = value
