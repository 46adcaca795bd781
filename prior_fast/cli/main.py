"""The `prior-fast` command: finds the verb, runs it, and turns errors into one line and an exit code."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import prior_fast
from prior_fast.cli.interrupts import end_at_interrupt, end_by_interrupts
from prior_fast.cli.mistakes import option_as_setting, unknown_words
from prior_fast.cli.parser import Parser, path_of
from prior_fast.cli.settings import SettingsOf, add_setting_words
from prior_fast.errors import Interrupted, RunError, UsageError

# In the order of use, which is the order that --help shows.
VERBS = (
    *("doctor", "build", "phantom", "prepare", "train", "evaluate", "pictures", "reproduce"),
    *("kernels", "bench", "weights", "completion"),
)
DESCRIPTION = (
    "Pre-train PRIOR (ICCV 2023) on pairs of chest X-rays and reports, and measure what it learned. "
    "`prior-fast` without arguments shows the first steps; `prior-fast COMMAND --help` explains a command."
)


def make_parser(words: Sequence[str] = ()) -> Parser:
    """The parser of the verb that `words` begin with; of all verbs if they begin with none."""
    parser = Parser(prog="prior-fast", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"prior-fast {prior_fast.__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in words[:1] if words and words[0] in VERBS else VERBS:
        importlib.import_module(f"prior_fast.cli.{verb}").add_parser(verbs)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments; `key=value` words may stand anywhere after a verb that takes them.

    `help train` means `train --help`.

    Raises:
        UsageError: words that the verb does not take.
    """
    if words and words[0] == "help":
        words = [*words[1:], "--help"]
    parser = make_parser(words)
    try:
        args, rest = parser.parse_known_args(words)
    except UsageError:
        # A mistyped option that must be given is missing for argparse: the mistake says more.
        _refuse_unknown_option(parser, words)
        raise
    settings_of: SettingsOf | None = getattr(args, "settings_of", None)
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(settings) < len(rest) or (settings and settings_of is None):
        path = path_of(parser, words)
        names = None if settings_of is None else settings_of.names()
        options = [option for each in path for option in each.options]
        raise UsageError(f"{unknown_words(rest, path[-1].prog, options, names)} {path[-1].see}")
    if settings_of is not None:
        args.settings = settings
        add_setting_words(args)
        for word in args.settings:
            _refuse_option(word, path_of(parser, words), settings_of)
    return args


def _refuse_unknown_option(parser: Parser, words: Sequence[str]) -> None:
    """Raise UsageError for an option that none of the parsers of the words has, nor one that begins like it."""
    path = path_of(parser, words)
    options = [option for each in path for option in each.options]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name != "--" and not any(option.startswith(name) for option in options):
            raise UsageError(f"{unknown_words([word], path[-1].prog, options, None)} {path[-1].see}")


def _refuse_option(word: str, path: Sequence[Parser], settings_of: SettingsOf) -> None:
    """Raise UsageError if a setting is an option without its dashes: data=prepared."""
    options = [option for each in path for option in each.options]
    key = word.partition("=")[0]
    if f"--{key.replace('_', '-')}" in options and (wrong := option_as_setting(word, options, settings_of.names())):
        raise UsageError(f"{wrong} {path[-1].see}")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; 0: done, 1: failed, 2: wrong use, 75: stopped by a signal, to go on later, 130: interrupted."""
    # By default PyTorch's threads spin while they wait. On a CPU that other processes also use, this makes every step
    # many times slower. This variable and the next must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A CPU step maps its large tensors again each time: with huge pages Linux has 500 times fewer pages to clear.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if words is not None:
        return _run(words)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        from prior_fast.cli.completing import complete

        return complete(make_parser, VERBS)
    end_by_interrupts()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have bytes that are no UTF-8
    code = _run(sys.argv[1:])
    end_at_interrupt(code)
    return code


def _run(words: Sequence[str]) -> int:
    try:
        return _do(words)
    except UsageError as error:
        return _complain(str(error), 2)
    except RunError as error:
        return _complain(str(error), 1)
    except BrokenPipeError:
        # The reader of standard output has ended (`prior-fast ... | head`). Python would complain at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except MemoryError:
        return _complain("memory ran out: use smaller settings, such as fewer --workers or a smaller batch_size", 1)
    except Interrupted as error:
        return _complain(str(error), 130)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _do(words: Sequence[str]) -> int:
    if not words:
        from prior_fast.cli.welcome import welcome

        print(welcome(make_parser()))
        return 0
    args = parse(words)
    settings_of: SettingsOf | None = getattr(args, "settings_of", None)
    if settings_of is not None:
        if args.list_settings is not None:
            print("\n".join(settings_of.lines(args, args.list_settings)))
            return 0
        settings_of.check(args)
    return args.run(args)


def _complain(message: str, code: int) -> int:
    # The one line stays one line, whatever a name in it holds.
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(message.split()))
    # A name of a file may have bytes that are no UTF-8, and nobody may read the line.
    with suppress(OSError):
        print(f"prior-fast: {line}".encode(errors="replace").decode(), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
