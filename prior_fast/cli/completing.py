"""The words that a shell offers, by argcomplete's protocol: commands, options, choices, files, and settings."""

import argparse
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import argcomplete

from prior_fast.cli.parser import Parser, path_of
from prior_fast.cli.settings import SettingsOf
from prior_fast.config import PRESETS
from prior_fast.errors import UsageError


def complete(make_parser: Callable[[Sequence[str]], Parser], verbs: Sequence[str]) -> int:
    """Write the words that may follow to where argcomplete's shell code reads them, and end the process.

    Args:
        make_parser: makes the parser of the verb that some words begin with, or of all `verbs`.
    """
    words = _words(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])])
    # Of the other verbs only the names are needed.
    parser = make_parser(words if words and words[0] in verbs else ())
    last = path_of(parser, words)[-1]
    _add_completers(last, words)
    argcomplete.autocomplete(parser, always_complete_options=False)
    return 0


def _words(line: str) -> list[str]:
    """The words after the command, the last of which may be incomplete."""
    try:
        return shlex.split(line)[1:]
    except ValueError:  # a quotation mark that is not closed yet
        return line.split()[1:]


def _add_completers(parser: Parser, words: list[str]) -> None:
    """Complete the values of --preset, and settings as if they were arguments."""
    settings_of: SettingsOf | None = parser.get_default("settings_of")
    for action in parser.actions:
        if "--preset" in action.option_strings:
            action.choices = tuple(PRESETS)
    if settings_of is not None:
        action = parser.add_argument("setting_words", nargs="*")
        action.completer = _SettingsCompleter(settings_of)  # type: ignore[attr-defined]


class _SettingsCompleter:
    """`key=` for each setting; after the "=", its choices."""

    def __init__(self, settings_of: SettingsOf) -> None:
        self.settings_of = settings_of

    def __call__(self, prefix: str, parsed_args: argparse.Namespace, **given: Any) -> Iterable[str]:
        try:
            described = self.settings_of.described(parsed_args)
        except UsageError:  # the words so far are wrong
            return []
        key, equals, _ = prefix.partition("=")
        if not equals:
            return [f"{each.name}=" for each in described]
        return [f"{key}={choice}" for each in described if each.name == key for choice in each.choices]
