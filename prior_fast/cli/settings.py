"""The settings (`key=value` words) of a command: declared once, then checked, listed, explained and completed."""

import argparse
import re
import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prior_fast.errors import UsageError
from prior_fast.spelling import nearest

if TYPE_CHECKING:
    from prior_fast.config.describe import Described

_WIDTH = 100  # columns of the list
_NAMES = 23  # columns of the names in a help
_WORD = 42  # columns of a setting in the list, before its type and source
_SHORT = {
    "whole number": "N",
    "number": "X",
    "text": "TEXT",
    "texts with commas": "A,B",
    "whole numbers with commas": "N,N",
}


@dataclass(frozen=True)
class SettingsOf:
    """The settings of a command.

    Attributes:
        config: the config that the words make with the options, by the command's own function; it raises UsageError.
        others: settings of the config that belong to other commands.
        source: where the value of a setting is from, for the list.
    """

    config: Callable[[argparse.Namespace, Sequence[str]], Any]
    others: tuple[str, ...] = ()
    source: Callable[[Any, str], str] = lambda config, name: "default"

    def described(self, args: argparse.Namespace, words: Sequence[str] = ()) -> "list[Described]":
        """The settings with the values that `words` give them."""
        from prior_fast.config.describe import describe

        return [each for each in describe(self.config(args, words)) if each.name not in self.others]

    def names(self) -> list[str]:
        """The names of the settings."""
        return [each.name for each in self.described(argparse.Namespace())]

    def check(self, args: argparse.Namespace) -> None:
        """Refuse what is no setting, or a value that it can't have, before anything slow is imported.

        Raises:
            UsageError: the message names the setting.
        """
        self.config(args, args.settings)

    def lines(self, args: argparse.Namespace, word: str) -> list[str]:
        """The list: each setting with its value, type, source and meaning, and a heading before those of a part.

        word: only settings with this in their names, or the part of this name.

        Raises:
            UsageError: no setting has the word in its name.
        """
        config = self.config(args, ())
        plain = {each.name: each.text for each in self.described(args)}
        shown = [each for each in self.described(args, args.settings) if word.lower() in each.name]
        if not shown:
            raise UsageError(f"--settings {word}: no setting has that in its name{nearest(word, plain)}")
        lines: list[str] = []
        part = ""
        for each in shown:
            if each.name.rpartition(".")[0] != part:
                part = each.name.rpartition(".")[0]
                lines += ["", f"{part}:"]
            source = self.source(config, each.name)
            if each.text != plain[each.name]:
                source = f"changed from {plain[each.name] or 'nothing'}"
            lines += [f"{shlex.quote(each.word):<{_WORD}}  # {each.kind}; {source}"]
            lines += textwrap.wrap(each.meaning, _WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
        return lines if lines[0] else lines[1:]


class _List(argparse.Action):
    """Lists the settings in place of the work, for which options may be missing."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values or "")
        parser.need_nothing()


def take_settings(parser: argparse.ArgumentParser, settings: SettingsOf, explained: bool = False) -> None:
    """Let a command take settings, and list them by `--settings`.

    explained: whether its help explains each of them. A config of many settings has only the list.
    """
    parser.add_argument(
        "--settings",
        dest="list_settings",
        nargs="?",
        const="",
        metavar="WORD",
        action=_List,
        help="list the settings with their values and meanings, or those with WORD in their names, and exit",
    )
    parser.set_defaults(settings=[], settings_of=settings)
    if explained:
        parser.epilog = f"{_explained(settings)}\n\n{parser.epilog}"


def add_setting_words(args: argparse.Namespace) -> None:
    """Take back a `key=value` word that `--settings` took for its WORD."""
    if args.list_settings and "=" in args.list_settings:
        args.settings = [args.list_settings, *args.settings]
        args.list_settings = ""


def _explained(settings: SettingsOf) -> str:
    """The settings as a part of a help."""
    from prior_fast.cli.parser import columns

    lines = ["settings (key=value words; the value in brackets is the default):"]
    for each in settings.described(argparse.Namespace()):
        kind = _SHORT.get(each.kind, each.kind)
        if re.fullmatch(r"\d+ (whole )?numbers", each.kind):
            kind = ",".join("N" * int(each.kind.split()[0]))
        name = f"{each.name}={kind}"
        default = f" ({each.text})" if each.text else ""
        indent = " " * (_NAMES + 2)
        first = f"  {name:<{_NAMES}}" if len(name) < _NAMES else f"  {name}\n{indent}"
        text = textwrap.wrap(
            f"{each.meaning}{default}", columns() - 2 - len(indent), break_long_words=False, break_on_hyphens=False
        )
        lines.append(first + f"\n{indent}".join(text))
    return "\n".join(lines)
