"""`PRIOR.encode_reports` on texts as people have them, and what it says about reports that are too long."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import prior_fast
from prior_fast.cli.main import main
from prior_fast.evaluation.encode import CutText

SMALL = ["batch_size=8", "stage_epochs=1,1,1", "max_steps_per_stage=1", "data.workers=0", "data.max_tokens=24"]
WANTED = ["The heart is normal.", "No effusion.", "Clear."]


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api") / "run"
    assert main(["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> "prior_fast.PRIOR":
    return prior_fast.PRIOR.from_pretrained(run, device="cpu")


@pytest.mark.parametrize(
    "text",
    [
        "FINAL REPORT\n \n HISTORY: Cough.\n \n FINDINGS: The heart is normal. No effusion.\n \n IMPRESSION: Clear.",
        "HISTORY: Cough. FINDINGS: The heart is normal. No effusion. IMPRESSION: Clear.",
        "**Findings**\r\nThe heart is normal.\r\nNo effusion.\r\n\r\n**Impression**\r\nClear.\r\n",
        "MOTIVO: tos. HALLAZGOS: The heart is normal. No effusion. CONCLUSIÓN: Clear.",
        "HISTORY: Cough.\n\nThe heart is normal. No effusion.\n\nClear.",
        "The heart is normal. No effusion. Clear.",
        ("The heart is normal.", "No effusion.", "Clear."),
        np.array(WANTED),
    ],
    ids=["mimic", "one line", "markdown", "spanish", "no sections", "no headers", "tuple", "array"],
)
def test_headers_are_dropped(model: "prior_fast.PRIOR", text: str) -> None:
    wanted, found = model.encode_reports([WANTED]), model.encode_reports([text])
    assert found.cu_sentences.tolist() == [0, 3]
    torch.testing.assert_close(found.reports, wanted.reports)


def test_the_rules_of_mimic_come_first(model: "prior_fast.PRIOR") -> None:
    # By the published rules "ndication" is an impression, and the last findings count.
    text = "\n FINDINGS: No effusion.\n FINDINGS: The heart is normal.\n NDICATION: Cough.\n"
    wanted = model.encode_reports([["The heart is normal.", "Cough."]])
    torch.testing.assert_close(model.encode_reports(text).reports, wanted.reports)


def test_sentences_of_a_list_are_not_split(model: "prior_fast.PRIOR") -> None:
    assert model.encode_reports([["FINDINGS: Heart normal. Clear.", "No effusion."]]).cu_sentences.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        (["Clear.", "INDICATION: Cough."], r"reports\[1\] has section headers, but neither findings nor impression"),
        (
            "FINDINGS:\nIMPRESSION:\n",
            r"reports\[0\] has section headers, but .* 'FINDINGS:.*give its sentences as a list",
        ),
        ("", r"reports\[0\] has no sentence: ''"),
        (["IMPRESSION: ___."], r"reports\[0\] has section headers|reports\[0\] has no sentence"),
        ([7], r"reports\[0\] is a int, wanted a text or a list of sentences"),
        ([b"Clear."], r"reports\[0\] is a bytes, wanted a text"),
        ([["Clear.", None]], r"reports\[0\] has a NoneType among its sentences"),
        (["Clear.", [" "]], r"reports\[1\] has no token"),
    ],
)
def test_what_has_no_sentence_is_named(model: "prior_fast.PRIOR", reports, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.encode_reports(reports)


def test_a_long_report_is_cut_with_a_warning(model: "prior_fast.PRIOR", capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "No effusion."
    length = len(model.encoder.tokenizer(sentence, add_special_tokens=False)["input_ids"])
    kept = 22 // length
    with pytest.warns(UserWarning, match=r"2 of 3 reports cut: .*data\.max_tokens=24") as caught:
        found = model.encode_reports(["Clear.", " ".join([sentence] * 100), [sentence] * 50])
    assert len(caught) == 1 and Path(caught[0].filename) == Path(__file__)
    assert f"the first is reports[1], with {kept} of 100 sentences kept" in str(caught[0].message)
    assert found.cut == 2 and found.cu_sentences.diff().tolist() == [1, kept, kept]
    assert found.cut_texts == (
        CutText(1, 100, kept, 100 * length, kept * length),
        CutText(2, 50, kept, 50 * length, kept * length),
    )
    assert capsys.readouterr().err == ""


def test_a_long_sentence_is_cut_with_a_warning(model: "prior_fast.PRIOR") -> None:
    words = ["no effusion " * 30]
    length = len(model.encoder.tokenizer(words[0], add_special_tokens=False)["input_ids"])
    with pytest.warns(UserWarning, match=rf"1 of 1 reports cut: .*reports\[0\], with 22 of {length} tokens kept"):
        assert model.encode_reports([words]).cut == 1


def test_short_reports_give_no_warning(model: "prior_fast.PRIOR") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.encode_reports(["Clear.", WANTED])
    assert found.cut == 0 and found.cut_texts == ()


def test_the_encoder_says_it_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = prior_fast.PRIOR.from_pretrained(run, device="cpu").encoder
    for _ in range(2):
        encoder.texts([["No effusion."] * 50])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("1 of 1 texts cut: ")
    encoder.texts([["No effusion."] * 50, ["Clear."]])
    assert capsys.readouterr().err.startswith("1 of 2 texts cut: ")


@pytest.mark.parametrize("task", ["zero-shot", "retrieval"])
def test_the_commands_say_it_once(
    task: str, run: Path, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = ["prompt={} " + "is observed " * 30] if task == "zero-shot" else []
    words = ["per_class=1", "pictures=false", *prompt]
    command = ["evaluate", task, "--checkpoint", str(run), "--data", str(small_store), "--split", "train"]
    assert main([*command, "--out", str(tmp_path / "out"), *words]) == 0
    notes = [
        line for line in capsys.readouterr().err.splitlines() if "the model was trained on at most 24 tokens" in line
    ]
    # Five prompts, or a report of each of the five classes; the pointing game has other prompts.
    assert sum(" of 5 texts cut: " in line for line in notes) == 1, notes
    assert len(notes) == len(set(notes)) == 1 if task == "retrieval" else len(set(notes)) == len(notes)
