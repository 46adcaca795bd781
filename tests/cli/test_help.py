"""What a stranger reads first: `prior-fast` alone, `--help` of each command, and the examples in it."""

import re
import shlex
from pathlib import Path

import pytest

from prior_fast.cli.main import VERBS, main, parse
from prior_fast.cli.parser import Parser, pasted
from prior_fast.cli.pictures import PicturesSettings
from prior_fast.cli.welcome import GROUPS, STEPS
from prior_fast.config import validate_config
from prior_fast.config.describe import describe
from tests.cli.commands import parsers

COMMANDS = dict(parsers())


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def examples(text: str) -> list[str]:
    """The commands in a help, their lines joined."""
    joined = re.sub(r" \\\n +", " ", text)
    return re.findall(r"^  ((?:prior-fast|torchrun) .+)$", joined.partition("\nexamples:\n")[2], re.MULTILINE)


EXAMPLES = [(words, line) for words, parser in COMMANDS.items() for line in examples(parser.format_help())]


def test_prior_fast_alone_shows_the_first_steps(capsys: pytest.CaptureFixture) -> None:
    """The exit code is 0: nothing was asked that can't be done, and what a new user wants to read is the output.

    A script that forgets the command still notices it, since nothing that it waits for is made.
    """
    assert main([]) == 0
    shown = capsys.readouterr()
    assert not shown.err
    assert "chest X-ray" in shown.out.splitlines()[0] and re.search(r"prior-fast \d", shown.out)
    assert all(f"\n  {command}\n" in shown.out for _, command in STEPS)
    assert all(re.search(rf"^    {verb} +\w", shown.out, re.MULTILINE) for verb in VERBS)
    assert sorted(verb for verbs in GROUPS.values() for verb in verbs) == sorted(VERBS)
    assert "--help" in shown.out and "docs/" in shown.out
    assert max(map(len, shown.out.splitlines())) < 80


def test_the_first_steps_are_commands(capsys: pytest.CaptureFixture) -> None:
    outs = {Path("X")}
    for _, command in STEPS:
        args = parse(shlex.split(command)[1:])
        given = Path(getattr(args, "images", None) or getattr(args, "data", None) or "X")
        assert given.name in {out.name for out in outs}, "each step takes what the one before made"
        outs.add(args.out)


@pytest.mark.parametrize("words", [["help"], ["help", "train"], ["help", "evaluate", "zero-shot"]])
def test_help_is_a_word_too(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    with pytest.raises(SystemExit):
        main([*words[1:], "--help"])
    first, second = capsys.readouterr().out.split("usage: ")[1:]
    assert first == second


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_help_says_what_the_command_does_and_fits_the_terminal(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = COMMANDS[words]
    assert parser.description and parser.description.rstrip().endswith(".")
    for columns, widest in (("80", 80), ("200", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        long = [line for line in parser.format_help().splitlines() if len(line) > widest]
        # Rows of a table and words without a blank can't be broken.
        assert all(line.startswith("  ") and len(line) <= 100 for line in long), long
    if words:
        assert examples(parser.format_help())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_has_a_meaning(words: tuple[str, ...]) -> None:
    for action in COMMANDS[words].actions:
        assert action.help, action.option_strings
        # An option in capital letters that repeats its name says nothing.
        takes_value = action.nargs != 0 and action.choices is None
        assert not takes_value or action.metavar, action.option_strings or action.dest
        if action.option_strings and takes_value and isinstance(action.default, (int, float, str)) and action.default:
            assert "default" in str(action.help), action.option_strings


@pytest.mark.parametrize(("words", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_can_be_pasted(words: tuple[str, ...], line: str) -> None:
    _, command = re.split(r"prior-fast |prior_fast\.cli\.main ", line, maxsplit=1)
    pasted = shlex.split(command)
    assert tuple(pasted[: len(words)]) == words or words[:1] == tuple(pasted[:1])
    args = parse(pasted)
    settings_of = getattr(args, "settings_of", None)
    if settings_of is not None and args.list_settings is None:
        settings_of.check(args)
        if words == ("train",):
            validate_config(settings_of.config(args, args.settings))


def test_the_examples_are_checked(capsys: pytest.CaptureFixture) -> None:
    assert len(EXAMPLES) > 40
    assert main(["train", "--data", "x", "--out", "y", "model.bank.prototypes=many"]) == 2
    assert "must be a whole number" in capsys.readouterr().err


def test_a_long_example_goes_on_in_a_second_line_between_options() -> None:
    command = "prior-fast reproduce --table 1 3 --data mimic=a --data rsna=b --out c train.batch_size=4"
    lines = pasted(command, 40).split("\n")
    assert len(lines) > 2 and all(line.endswith(" \\") for line in lines[:-1])
    assert not any(re.search(r"--\w+ \\$", line) for line in lines), "an option stays beside its value"
    assert pasted(command, 40).replace("\\\n", "").split() == command.split()


def test_texts_are_wrapped_and_commands_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"  prior-fast {'x' * 90}"
    help_text = Parser(prog="x", description="text " * 40, epilog=f"{'text ' * 40}\n{command}").format_help()
    assert [line for line in help_text.splitlines() if len(line) > 80] == [command]


def test_pictures_has_the_settings_of_its_config() -> None:
    from prior_fast.pictures.config import PicturesConfig

    shown = [(each.name, each.text, each.choices) for each in describe(PicturesSettings())]
    assert shown == [(each.name, each.text, each.choices) for each in describe(PicturesConfig())]


def test_reproduce_has_the_tables() -> None:
    from prior_fast.cli.reproduce import TABLES
    from prior_fast.reproduce.plan import PREFIXES
    from prior_fast.reproduce.tables import ALL
    from prior_fast.reproduce.tables import TABLES as MADE

    assert list(TABLES) == [*MADE, ALL]
    names = COMMANDS["reproduce",].get_default("settings_of").names()
    assert {name.partition(".")[0] for name in names} == set(PREFIXES)
