"""The `prior-fast` command: finds the verb, runs it, and turns errors into one line and an exit code."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import prior_fast
from prior_fast.cli.interrupts import end_at_interrupt, end_by_interrupts
from prior_fast.errors import Interrupted, RunError, UsageError
from prior_fast.spelling import nearest

# In the order of use, which is the order that --help shows.
VERBS = (
    *("doctor", "build", "phantom", "prepare", "train", "evaluate", "pictures", "reproduce"),
    *("kernels", "bench", "weights"),
)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError with a one-line message, without the usage text."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser(words: Sequence[str] = ()) -> Parser:
    """The parser of the verb that `words` begin with; of all verbs if they begin with none."""
    parser = Parser(prog="prior-fast", description=prior_fast.__doc__)
    parser.add_argument("--version", action="version", version=f"prior-fast {prior_fast.__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in words[:1] if words and words[0] in VERBS else VERBS:
        importlib.import_module(f"prior_fast.cli.{verb}").add_parser(verbs)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments; `key=value` words may stand anywhere after a verb that takes them.

    Raises:
        UsageError: words that the verb does not take.
    """
    parser = make_parser(words)
    args, rest = parser.parse_known_args(words)
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    unknown = [word for word in rest if word not in settings]
    if settings and not hasattr(args, "settings"):
        unknown = settings + unknown
    if unknown:
        hint = nearest(unknown[0], _options(parser, words))
        raise UsageError(f"unknown argument {unknown[0]!r}{hint} (see prior-fast {words[0]} --help)")
    if settings:
        args.settings = settings
    return args


def _options(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The options that the verbs named in `words` take."""
    options = [option for action in parser._actions for option in action.option_strings]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word in words:
                if word in action.choices:
                    return options + _options(action.choices[word], words)
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; 0: done, 1: failed, 2: wrong use, 75: stopped by a signal, to go on later, 130: interrupted."""
    # By default PyTorch's threads spin while they wait. On a CPU that other processes also use, this makes every step
    # many times slower. This variable and the next must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A CPU step maps its large tensors again each time: with huge pages Linux has 500 times fewer pages to clear.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if words is not None:
        return _run(words)
    end_by_interrupts()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have bytes that are no UTF-8
    code = _run(sys.argv[1:])
    end_at_interrupt(code)
    return code


def _run(words: Sequence[str]) -> int:
    try:
        args = parse(words)
        return args.run(args)
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


def _complain(message: str, code: int) -> int:
    # The one line stays one line, whatever a name in it holds.
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(message.split()))
    # A name of a file may have bytes that are no UTF-8, and nobody may read the line.
    with suppress(OSError):
        print(f"prior-fast: {line}".encode(errors="replace").decode(), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
