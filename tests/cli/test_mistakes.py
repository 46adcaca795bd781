"""Mistyped commands, options and settings: one line that says what was meant."""

import pytest

from prior_fast.cli.main import main
from prior_fast.spelling import closest

EVALUATE = ["--checkpoint", "a", "--data", "b", "--out", "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "invalid choice: 'trian': did you mean 'train'?"),
        ("help trian", "invalid choice: 'trian': did you mean 'train'?"),
        ("prepare mimc", "invalid choice: 'mimc': did you mean 'mimic'?"),
        ("evaluate zeroshot", "invalid choice: 'zeroshot': did you mean 'zero-shot'?"),
        ("weights conver", "invalid choice: 'conver': did you mean 'convert'?"),
        ("bench kernel", "invalid choice: 'kernel': did you mean 'kernels'?"),
        ("completion bsh", "invalid choice: 'bsh': did you mean 'bash'?"),
        ("phantom --out y --layout chexprt", "--layout: invalid choice: 'chexprt': did you mean 'chexpert'?"),
        ("bench train --stage 4", "--stage: invalid choice: '4': choose from 1, 2, 3"),
        ("phantom --out y --studies many", "--studies many: must be a whole number"),
        ("evaluate", "TASK is missing: choose from zero-shot, retrieval, generation, bank, classification"),
        ("zzz", "invalid choice: 'zzz': choose from doctor, build, phantom"),
    ],
)
def test_the_nearest_command_or_choice_is_named(line: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "--help)" in error


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["batch_size", "4"], "batch_size=4"),
        (["--batch-size", "4"], "batch_size=4"),
        (["--batch-size=4"], "batch_size=4"),
        (["--batch_size=4"], "batch_size=4"),
        (["-batch_size", "4"], "batch_size=4"),
        (["batch_size", "=", "4"], "batch_size=4"),
        (["batch_size=", "4"], "batch_size=4"),
        (["batch_size", "=4"], "batch_size=4"),
        (["batch_size:4"], "batch_size=4"),
        (["model.bank.prototypes:", "3"], "model.bank.prototypes=3"),
        (["--model.bank.prototypes", "3"], "model.bank.prototypes=3"),
        (["--batchsize", "4"], "batch_size=4"),
        (["--clip-norm", "-1"], "clip_norm=-1"),
        (["data.flip"], "data.flip=VALUE"),
    ],
)
def test_settings_in_another_form_are_answered_with_theirs(
    words: list[str], meant: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "--data", "x", *words]) == 2
    error = capsys.readouterr().err
    assert "settings are written key=value" in error and f"did you mean {meant}?" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # An option that is nearer than any setting stays an option.
        (["train", "--dta", "x"], "unknown argument '--dta': did you mean '--data'?"),
        (
            ["train", "--resum", "auto", "--stop-aftr", "3"],
            "unknown argument '--stop-aftr': did you mean '--stop-after'?",
        ),
        (["train", "data=x"], "unknown setting 'data': did you mean --data x?"),
        (["train", "stop_after=3"], "unknown setting 'stop_after': did you mean --stop-after 3?"),
        (["evaluate", "zero-shot", *EVALUATE, "per_class", "3"], "did you mean per_class=3?"),
        (["evaluate", "zero-shot", *EVALUATE, "split=test"], "unknown setting 'split': did you mean --split test?"),
        (["evaluate", "zero-shot", *EVALUATE, "cutoffs=1"], "cutoffs is a setting of retrieval, not of zero-shot"),
        (["evaluate", "detection", *EVALUATE, "--percent", "1"], "did you mean percent=1?"),
        (["evaluate", "detection", *EVALUATE, "percent=5"], "percent=5: choose from 1, 10, 100"),
        (["bench", "train", "--learning-rate", "1,1,1"], "did you mean learning_rate=1,1,1?"),
        (["pictures", *EVALUATE, "--count", "2"], "did you mean count=2?"),
        (
            ["reproduce", "--table", "1", "train.batch_sise=4"],
            "unknown setting 'batch_sise': did you mean 'batch_size'?",
        ),
        # Commands that take no settings say so.
        (["doctor", "batch_size=4"], "prior-fast doctor takes no settings"),
        (["phantom", "--out", "y", "studies=3"], "takes no settings; did you mean --studies 3?"),
        (["train", "xyzzy"], "unknown argument 'xyzzy' (see prior-fast train --help)"),
    ],
)
def test_options_settings_and_neither(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("model.bank.prototype", "model.bank.prototypes"),
        ("model.text.weight", "model.text.weights"),
        ("bank.prototype", "model.bank.prototypes"),
        ("model.flip", "data.flip"),
        ("flip", "data.flip"),
        ("BATCH_SIZE", "batch_size"),
        ("batchsize", "batch_size"),
        ("xyzzy", None),
    ],
)
def test_dotted_names_are_compared_whole_first(word: str, meant: str | None) -> None:
    known = (
        *("batch_size", "loss.prototype", "model.bank.prototypes", "model.image.weights", "model.text.weights"),
        *("data.flip", "model.layout"),
    )
    assert closest(word, known) == meant


def test_initials_stand_for_a_setting(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--data", "x", "--out", "y", "lr=0.1"]) == 2
    assert "unknown setting 'lr': did you mean 'learning_rate'?" in capsys.readouterr().err


def test_a_mistyped_option_is_named_before_those_that_are_missing(capsys: pytest.CaptureFixture) -> None:
    assert main(["prepare", "table", "--tabel", "x", "--out", "y"]) == 2
    shown = capsys.readouterr().err
    assert "unknown argument '--tabel': did you mean '--table'?" in shown and "required" not in shown
    assert main(["prepare", "table", "--tab", "x", "--out", "y"]) == 2  # argparse knows beginnings of options
    assert "--images" in capsys.readouterr().err
