"""The parsers of the command line: errors of one line, help that fits the terminal, options that are added late."""

import argparse
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from prior_fast.cli.mistakes import in_one_line
from prior_fast.errors import UsageError

WIDEST = 100  # columns of a help; longer lines are hard to read
_NAMES = 18  # columns of the names of commands in a help


def columns() -> int:
    """The columns that a help may take in this terminal."""
    return max(40, min(shutil.get_terminal_size().columns, WIDEST))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As argparse's, with at most `WIDEST` columns. `Parser.format_help` wraps the texts around the options."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, **{"max_help_position": 24, "width": columns() - 2, **settings})


class Verbs:
    """The commands or tasks of a parser, around what argparse returns for them.

    Attributes:
        choices: the parser of each.
        helps: the line of each in the help.
    """

    def __init__(self, subparsers: Any) -> None:
        self._subparsers = subparsers
        self.choices: dict[str, Parser] = {}
        self.helps: dict[str, str] = {}

    def add_parser(self, name: str, **settings: Any) -> "Parser":
        """As in argparse."""
        self.helps[name] = settings.get("help", "")
        self.choices[name] = self._subparsers.add_parser(name, **settings)
        return self.choices[name]


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError with a one-line message, without the usage text.

    Attributes:
        actions: the arguments, in their order.
        verbs: the commands or tasks to choose from, if there are any.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.actions: list[argparse.Action] = []
        self.verbs: Verbs | None = None
        super().__init__(*args, **{"formatter_class": HelpFormatter, **settings})

    def add_argument(self, *args: Any, **settings: Any) -> argparse.Action:
        """As in argparse."""
        action = super().add_argument(*args, **settings)
        self.actions.append(action)
        return action

    @property
    def options(self) -> list[str]:
        """All option strings, such as "--out"."""
        return [option for action in self.actions for option in action.option_strings]

    def need_nothing(self) -> None:
        """Let every option be left out."""
        for action in self.actions:
            action.required = False

    def add_subparsers(self, **settings: Any) -> Any:
        """As in argparse; the names have a column of their own in the help, however long they are."""
        metavar = settings["metavar"]
        self.verbs = Verbs(super().add_subparsers(**{**settings, "metavar": metavar.ljust(_NAMES)}, prog=self.prog))
        self.usage = f"%(prog)s [-h] {metavar} ..."
        return self.verbs

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{in_one_line(message, list(self.verbs.choices) if self.verbs else ())} {self.see}")

    @property
    def see(self) -> str:
        """Where to read on, at the end of a message."""
        return f"(see {self.prog} --help)"

    def complete(self) -> None:
        """Add what is added late: nothing here."""

    def format_help(self) -> str:
        """As in argparse, with the description and the epilog in the terminal's width."""
        texts = self.description, self.epilog
        self.description, self.epilog = (text and wrapped(text, columns() - 2) for text in texts)
        try:
            lines = super().format_help().split("\n")
        finally:
            self.description, self.epilog = texts
        return "\n".join(line.rstrip() for line in lines)


class LateParser(Parser):
    """A parser that gets its options when it first parses words or shows its help.

    Args:
        fill: adds description, options and the function to run; None if the parser is complete.
    """

    def __init__(self, *args: Any, fill: Callable[["LateParser"], None] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._fill = fill

    def complete(self) -> None:
        """Add the options, once."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse."""
        self.complete()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """As in argparse."""
        self.complete()
        return super().format_help()


def path_of(parser: Parser, words: Sequence[str]) -> list[Parser]:
    """The parsers that the words choose, such as those of `prior-fast`, `evaluate` and `zero-shot`; all complete."""
    path = [parser]
    for word in words:
        last = path[-1]
        if last.verbs and word in last.verbs.choices:
            path.append(last.verbs.choices[word])
            path[-1].complete()
    return path


def examples(*commands: str) -> str:
    """The part of a help with commands that can be pasted; a long one goes on in a second line."""
    return "examples:\n" + "\n".join(f"  {pasted(command)}" for command in commands)


def pasted(command: str, width: int = 76) -> str:
    """A command of a help in lines of at most `width` characters, as far as its words allow, to paste into a shell."""
    parts: list[str] = []
    option = True
    for word in command.split(" "):
        if not option and (word.startswith("--") or "=" in word):
            parts.append(word)
        else:  # the name of the command, and values, which stay beside their options
            parts = [*parts[:-1], f"{parts[-1]} {word}"] if parts else [word]
        option = word.startswith("--")
    lines, line = [], parts[0]
    for part in parts[1:]:
        if len(line) + 1 + len(part) > width - 2:
            lines.append(f"{line} \\")
            line = f"    {part}"
        else:
            line += f" {part}"
    return "\n  ".join([*lines, line])


def wrapped(text: str, width: int) -> str:
    """The text with each line wrapped, except for those that begin with a blank, such as commands."""
    lines: list[str] = []
    for line in text.split("\n"):
        if not line or line.startswith(" "):
            lines.append(line)
        else:
            lines += textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
