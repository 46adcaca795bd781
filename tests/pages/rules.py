"""How the commands of the pages become small, and which do not run: each change and each exception with its reason.

Words of a command that no rule names stay as the page has them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What changes in some commands.

    Attributes:
        pattern: a regular expression that the command's words match from their start, joined by blanks.
        change: the changes, separated by blanks. `--option=value` and `key=value` take the place of the page's value or
            are added; `+key=value` is added where the page does not have the key; `--flag` is added; `!--flag` is left
            out.
        why: the reason.
        codes: the exit codes that are right.
    """

    pattern: str
    change: str
    why: str
    codes: tuple[int, ...] = (0,)


MODEL = (
    "+model.image.width=8 +model.image.pool_heads=2 +model.text.hidden_size=32 +model.text.heads=2 "
    "+model.text.intermediate_size=32 +model.text.layers=1 +model.sentence_decoder.layers=1 "
    "+model.sentence_decoder.heads=2 +model.sentence_decoder.intermediate_size=32 +model.embed_dim=32 "
    "+model.bank.prototypes=16"
)
STEPS = "device=cpu processes=1 precision=fp32 batch_size=4 stage_epochs=1,1,1 max_steps_per_stage=1 data.workers=0"
SHALLOW = "model.image.depths=1,1,1,1 model.text.layers=1 model.sentence_decoder.layers=1"
OWN_RUN = r"train (?!.*--settings)(?=.*--preset|(?!.*--resume))"
RULES = (
    Rule("phantom ", "--studies=48 --size=128 --workers=1", "few and small images"),
    Rule("prepare (?!merge)", "--workers=1", "no other processes"),
    Rule(
        "prepare .*--shard", "--shard=1/1", "one part is all of them, so that `prepare merge` has nothing to wait for"
    ),
    Rule(OWN_RUN, f"{STEPS} {MODEL}", "a small model and one step for each stage; a resumed run has its own settings"),
    Rule(
        f"{OWN_RUN}(?!.*--preset tiny)",
        "+model.image.weights=random +model.text.weights=random +model.image.depths=1,1,1,1",
        "no published weights, which are on other machines",
    ),
    Rule("evaluate ", "device=cpu", "the same on a machine with a GPU"),
    Rule(
        "evaluate classification ",
        "percent=100 +splits=prior-0 max_steps=1 batch_size=4",
        "one step; 1 % of so few images has no positive one",
    ),
    Rule(
        "evaluate segmentation ",
        "percent=100 +splits=folds-0 max_steps=1 batch_size=2 decoder_channels=16,8,8,8,8",
        "one step; 1 % of so few images has no positive one",
    ),
    Rule(
        "evaluate detection ",
        "percent=100 +splits=folds-0 max_steps=1 batch_size=2 pyramid_channels=16 head_width=16 proposals=16",
        "one step; 1 % of so few images has no positive one",
    ),
    Rule("pictures ", "device=cpu count=1", "one picture of each kind"),
    Rule("reproduce ", "--plan", "tests/reproduce/test_all_tables.py runs the steps in small"),
    Rule(r"bench kernels (?!.*--op \w+ (?!\w))", "--op=segment_mean", "one op stands for all and for several"),
    Rule("bench kernels ", "--seconds=0.001 --device=cpu", "a few calls of each row"),
    Rule("bench convolutions ", "--seconds=0.001 --device=cpu --batch=2 --width-divisor=16", "small convolutions"),
    Rule(
        "bench train ",
        f"--batch=4 --steps=1 --warm-up=1 --width-divisor=16 --rungs=af device=cpu {SHALLOW} !--count-compiled",
        "one step of a small model, plain and as `train` does it; torch.compile takes minutes",
    ),
    Rule("bench loader ", "--seconds=0.01 --batch=4 --device=cpu", "a few batches"),
    Rule("bench memory ", f"--width-divisor=16 --batches=2,3 {SHALLOW}", "a small model"),
    Rule("bench predict ", f"--width-divisor=16 {SHALLOW}", "a small model"),
    Rule("bench predict .*--measure", "--batch=4", "few images in the steps that are measured"),
    Rule("bench ceiling ", "--epochs=1 !--like batch_size=4 device=cpu", "one epoch"),
    Rule("bench compare ", "", "1: a row became slower, which the clock decides here", (0, 1)),
    Rule("kernels report (?!.*--op)", "--op=segment_mean", "one op stands for all"),
    Rule(r"kernels report (?!.*--arch)", "--arch=sm_80", "one architecture stands for all"),
)
# Words that only another machine can serve.
REPLACED = {"emilyalsentzer/Bio_ClinicalBERT": "bio-clinical-bert"}  # a folder of tests/pages/artefacts.py
# Commands that no test of a page runs: by a regular expression on their words.
NOT_RUN = {
    r"make ": "installs packages, or takes minutes; `make --dry-run` accepts the target",
    r"pip install ": "installs packages; tests/install installs the wheel",
    r"(python -m )?pytest ": "tests in a test; the files exist",
    r"bash bench/": "takes half an hour; tests/bench runs the scripts with a stand-in",
    r"sbatch ": "a batch system",
    r"scontrol ": "a batch system",
    r"(cp|tar|git|head|source|jupyter) ": "another program, for the environment or for files that take hours to make",
    r"prior-fast prepare merge --out prepared ": "named before its parts are made; the script of the page merges",
    r"prior-fast build --": "builds for another GPU, into this checkout; tests/csrc builds elsewhere",
    r"python (-m prior_fast\.bench\.(demo|gpu)\.|\S+\.py )": (
        "takes minutes to hours; tests/bench and tests/examples run the script in small"
    ),
    r"prior-fast prepare (openi|padchest|chexpert_plus|nih14|vindr|chestxdet10|covidx) ": (
        "files in this layout; tests/prepare makes them and runs the command"
    ),
}


def shrink(words: Sequence[str]) -> tuple[list[str], tuple[int, ...]]:
    """A command of prior-fast in small, and its right exit codes.

    words: the words after `prior-fast`.
    """
    small, codes = [REPLACED.get(word, word) for word in words], (0,)
    line = f"{' '.join(words)} "
    for rule in RULES:
        if re.match(rule.pattern, line):
            codes = rule.codes if rule.codes != (0,) else codes
            for change in rule.change.split():
                small = _changed(small, change)
    return small, codes


def not_run(words: Sequence[str]) -> str:
    """Why a command does not run; "" if it does."""
    line = f"{' '.join(words)} "
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line)), "")


def _changed(words: list[str], change: str) -> list[str]:
    name, equals, value = change.lstrip("+!").partition("=")
    if not name.startswith("--"):
        has = [word for word in words if word.startswith(f"{name}=")]
        if has and change.startswith("+"):
            return words
        return [*(word for word in words if word not in has), f"{name}={value}"]
    kept = list(words)
    if name in kept and (equals or change.startswith("!")):
        at = kept.index(name)
        end = next((n for n in range(at + 1, len(kept)) if kept[n].startswith("--") or "=" in kept[n]), len(kept))
        del kept[at:end]
    if change.startswith("!") or (not equals and name in kept):
        return kept
    return [*kept, name, *([value] if equals else [])]
