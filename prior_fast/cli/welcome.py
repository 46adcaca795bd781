"""What `prior-fast` prints without arguments: what it is, the first steps, and the commands."""

from prior_fast.cli.parser import Parser, columns, wrapped
from prior_fast.version import __version__

WHAT = "prior-fast {version}: PRIOR (ICCV 2023), joint pre-training of chest X-ray and report encoders."
# They need no GPU, no data and no weights.
STEPS = (
    ("make up chest X-rays with reports", "prior-fast phantom --out phantom --studies 300"),
    ("make a dataset of them", "prior-fast prepare mimic --images phantom --out prepared"),
    ("train a small model on it", "prior-fast train --preset tiny --data prepared --out run"),
)
GROUPS = {
    "this machine": ("doctor", "build", "completion"),
    "data": ("phantom", "prepare"),
    "the model": ("train", "evaluate", "pictures", "weights", "reproduce"),
    "speed": ("bench", "kernels"),
}
READ_ON = (
    "`prior-fast COMMAND --help` (or `prior-fast help COMMAND`) explains a command, with examples. "
    "`prior-fast doctor` says what this machine can do. README.md and docs/ have the pages."
)


def welcome(parser: Parser) -> str:
    """The text, in the terminal's width.

    Args:
        parser: that of all commands; their lines are those of its help.
    """
    width = columns() - 1
    lines = [wrapped(WHAT.format(version=__version__), width), "", "First steps, without a GPU and without data:"]
    lines += ["", *(line for what, command in STEPS for line in (f"  # {what}", f"  {command}"))]
    lines += ["", "Commands:"]
    helps = parser.verbs.helps if parser.verbs else {}
    for group, verbs in GROUPS.items():
        lines += ["", f"  {group}", *(_line(verb, helps[verb], width) for verb in verbs)]
    return "\n".join([*lines, "", wrapped(READ_ON, width)])


def _line(verb: str, text: str, width: int) -> str:
    return f"    {verb:<12}" + wrapped(text, width - 16).replace("\n", f"\n{' ' * 16}")
