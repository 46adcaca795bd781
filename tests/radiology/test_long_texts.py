"""Text code takes time that is linear in the length of any text. The unit of each text is what takes most time."""

import subprocess
import sys

import pytest

# The processor's time of a text eight times as long: eight times as much if it is linear, 64 times if quadratic.
TIMES, MOST = 8, 28
# Below this time, in seconds, nothing is compared: it would measure noise.
NOISE = 0.2
# A guard against hanging only.
TIMEOUT = 600

# Text before, the repeated unit, text after.
SENTENCES = [
    ("a", ".", "b"),
    ("a", ".)", "b"),
    ("a", "!?", '"x'),
    ("", "Dr. ", "x"),
    ("", "? w ", ""),
    ("a ¿", "? w ", ""),
    ("", "J. ", ""),
    ("", "vs . ", ""),
    ("", "1.1.1.", "x"),
    ("", "a.b.c.", " x"),
    ("", "mm. a ", ""),
    ("", "normal.The", ""),
    ("", "\n1. a", ""),
    ("", "\n- a", ""),
    ("", "x", ""),
    ("", " ", "x"),
    ("1", "\n", "x"),
    ("", "\u2003\xa0", "x"),
    ("e", "\u0327\u0334", ""),
    ("a", "\0", ". b"),
    ("", "(", "a"),
    ("", '"', "a. b"),
]
SECTIONS = [
    *(
        ("Findings", " ", "x"),
        ("Findings", "\t", "\nb"),
        ("**Findings", " ", "** x"),
        ("Findings", "#", "x"),
        ("A", "-", "x"),
    ),
    *(("", "DATE: ", ""), ("", "date: ", ""), (" a", " ", "x DATE: b"), ("", "a: ", ""), ("x ", ")", "DATE: b")),
    *(
        ("HISTORY", " ", "****: x"),
        ("x. HISTORY", " ", "****: x"),
        ("", "FINDINGS: a ", ""),
        ("", "\n FINDINGS: a", ""),
    ),
    *(("", "IMPRESSION\n", "x"), ("", "Chest Hospital\n", "x"), ("EXAM: a", "\n", "b"), ("EXAM: a\n", "b\n", "")),
    *(
        ("", "the ", "findings: a"),
        ("", "(", "findings"),
        ("e", "\u0327\u0334", ""),
        ("FINDINGS", "\n", ":"),
        ("", ". Signed ", ""),
    ),
    *(("a", "\n\n", "b"), ("HISTORY: a\n\n", "b\n\n", ""), ("PLAN:", "-", "\n"), ("", "x", ": a"), ("", "\u2028", "x")),
]
STATEMENTS = [
    ("no ", "effusion ", ""),
    ("", "heart ", ""),
    ("", "enlarge ", "heart"),
    ("", "but ", "edema"),
    ("", "x", ""),
]

WORK = {
    "sentences": ("prior_fast.radiology.sentences", "split_sentences(text)", SENTENCES),
    "mimic": ("prior_fast.radiology.sections", "split_sections(text)", SECTIONS),
    "tolerant": ("prior_fast.radiology.tolerant_sections", "tolerant_sections(text)", SECTIONS),
    "statements": ("prior_fast.evaluation.statements", "read_statement(text)", STATEMENTS),
}
MEASURE = """
import sys
from time import process_time
from {module} import {function}

for before, unit, after in {texts!r}:
    taken = []
    for size in ({short}, {long}):
        text = before + unit * (size // len(unit)) + after
        begin = process_time()
        {call}
        taken.append(process_time() - begin)
    if taken[1] > {noise} and taken[1] > {most} * taken[0]:
        print(repr((before, unit, after)), *taken)
"""


@pytest.mark.parametrize("short", [8_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WORK)
def test_time_is_linear(name: str, short: int) -> None:
    module, call, texts = WORK[name]
    function = call.partition("(")[0]
    sizes = {"short": short, "long": short * TIMES, "noise": NOISE, "most": MOST}
    script = MEASURE.format(module=module, function=function, call=call, texts=texts, **sizes)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stdout == ""
