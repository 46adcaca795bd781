"""Every code block of the pages has a known language, and every command exists with its options and settings."""

import csv
import json
import re
import tomllib
from collections.abc import Callable
from functools import cache
from io import StringIO

import pytest

from tests.pages.blocks import INDENTED, Block, page, page_names
from tests.pages.followed import SECTIONS, is_followed
from tests.pages.known import Unknown, check_code, check_command, tasks
from tests.pages.rules import NOT_RUN, REPLACED, RULES
from tests.pages.shell import Command, commands


def _parse_yaml(text: str) -> None:
    import yaml

    yaml.safe_load(text)


def _parse_csv(text: str) -> None:
    widths = {len(row) for row in csv.reader(StringIO(text)) if row}
    assert len(widths) == 1, f"rows of {sorted(widths)} cells"


PARSERS: dict[str, Callable[[str], object]] = {
    **{"json": json.loads, "toml": tomllib.loads, "yaml": _parse_yaml, "csv": _parse_csv},
    "python": lambda text: compile(text, "block", "exec"),
}
# What these hold is checked by this file (sh), as a synopsis (text), by tests/pages/test_links.py (toctree), or by
# tests/architecture/test_contributing.py (diff).
OTHERS = ("sh", "text", "{toctree}")


@pytest.fixture(scope="session")
def block_commands(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Block], list[Command]]:
    """The commands of a block of the shell."""

    @cache
    def found(block: Block) -> list[Command]:
        return commands(block, tmp_path_factory.mktemp("block"))

    return found


@pytest.mark.parametrize("name", page_names())
def test_every_block_has_a_known_language(name: str) -> None:
    for block in page(name).blocks():
        assert block.language != INDENTED, f"{block.place}: an indented block: fence it, with a language"
        known = block.language in (*PARSERS, *OTHERS) or (block.language == "diff" and is_followed(block))
        assert known, f"{block.place}: the language {block.language!r}: choose from {', '.join((*PARSERS, *OTHERS))}"
        if block.language in PARSERS:
            try:
                PARSERS[block.language](block.text)
            except Exception as error:
                raise AssertionError(f"{block.place}: no {block.language}: {error}") from error


@pytest.mark.parametrize("name", page_names())
def test_every_command_exists(name: str, block_commands: Callable[[Block], list[Command]]) -> None:
    problems = []
    for block in page(name).blocks():
        if block.language == "sh" and not is_followed(block):
            found = block_commands(block)
            assert found, f"{block.place}: no commands in a block of the shell"
            for command in found:
                try:
                    check_command(command.words)
                except Unknown as error:
                    problems.append(f"{block.place}: {command}: {error}")
        elif block.language == "text":
            problems += _problems(block, re.sub(r"\n\s+", " ", block.text).split("\n"))
    for code in page(name).codes():
        problems += _problems(code, [code.text])
    assert problems == []


def _problems(block: Block, lines: list[str]) -> list[str]:
    found = []
    for line in filter(str.strip, lines):
        try:
            check_code(line)
        except Unknown as error:
            found.append(f"{block.place}: {line}: {error}")
    return found


def test_the_followed_sections_are_there() -> None:
    followed = {block.heading for block in page("CONTRIBUTING.md").blocks() if is_followed(block)}
    assert followed == SECTIONS and len(SECTIONS) > 2


def test_no_exception_is_stale(block_commands: Callable[[Block], list[Command]]) -> None:
    """Each reason not to run a command, and each replaced word, is of a command that a page has."""
    lines = []
    for name in page_names():
        for block in page(name).blocks():
            if block.language == "sh" and not is_followed(block):
                lines += [f"{command} " for command in block_commands(block)]
        lines += [f"{code.text} " for code in page(name).codes()]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in lines)] == []
    assert [word for word in REPLACED if not any(f" {word} " in line for line in lines)] == []


def test_every_rule_is_of_a_command_that_exists() -> None:
    for rule in RULES:
        words = re.match(r"[\w -]+", rule.pattern)[0].split()  # type: ignore[index]
        for number, word in enumerate(words):
            assert word in tasks(tuple(words[:number])), rule.pattern
        assert rule.why
