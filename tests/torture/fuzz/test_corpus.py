"""The corpora of the fuzzed parsers, and random changes of them, without atheris."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.fuzz.corpora import CORPUS, PARSERS, changed, inputs_of, target_of

# How many changed inputs are tried: the slower parsers take fewer.
CHANGED = {"sections": 120, "sentences": 250, "rle": 3000, "tables": 500, "text_files": 3000}


def test_each_parser_has_a_small_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(PARSERS) == set(CHANGED)
    for parser, longest in PARSERS.items():
        inputs = inputs_of(parser)
        assert 10 <= len(inputs) <= 100 and max(map(len, inputs)) <= longest, parser


@pytest.mark.parametrize("parser", PARSERS)
def test_the_corpus_and_changes_of_it(parser: str) -> None:
    target, inputs, draw = target_of(parser), inputs_of(parser), random.Random(1)
    for data in [*inputs, *(changed(draw, inputs) for _ in range(CHANGED[parser]))]:
        try:
            target(data)
        except Exception as error:
            raise AssertionError(f"{parser} fails on {data!r}") from error


def test_a_harness_fails_if_its_parser_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.torture.fuzz.harness import rle, sentences, text_files

    monkeypatch.setattr(sentences, "split_sentences", lambda text: [text.replace("a", "")])
    monkeypatch.setattr(text_files, "decode_text", lambda data: (data.decode("latin-1"), "cp1252"))
    monkeypatch.setattr(rle, "decode_rle", lambda text, rows, columns: int(text))
    for harness, data in ((sentences, b"a b"), (text_files, b"a\0"), (rle, b"\0\x001")):
        with pytest.raises((AssertionError, AttributeError)):
            harness.target(data)


def test_the_command_says_what_is_missing_or_unknown() -> None:
    script = Path(__file__).with_name("run.py")
    # -S: without the packages of the environment, so also without atheris.
    missing = subprocess.run([sys.executable, "-S", script, "rle"], capture_output=True, text=True, timeout=120)
    assert missing.returncode == 2 and missing.stdout.count("\n") == 1 and "atheris is not installed" in missing.stdout
    unknown = subprocess.run([sys.executable, "-S", script, "none"], capture_output=True, text=True, timeout=120)
    assert unknown.returncode == 2 and "there is no parser 'none'" in unknown.stderr
