"""What a mistyped command line should have been, in one line."""

import re
from collections.abc import Sequence

from prior_fast.spelling import closest, likeness, nearest

_CHOICE = re.compile(r"argument (?P<what>.+?): invalid choice: (?P<word>.+) \(choose from (?P<known>.+)\)", re.DOTALL)
_KIND = re.compile(r"argument (?P<what>\S+): invalid (?P<kind>int|float) value: (?P<word>.+)", re.DOTALL)
_KINDS = {"int": "a whole number", "float": "a number"}
_MISSING = "the following arguments are required: "


def in_one_line(message: str, verbs: Sequence[str]) -> str:
    """A message of argparse, with a suggestion in place of long lists.

    verbs: the commands or tasks of the parser that complains.
    """
    if found := _CHOICE.fullmatch(message):
        what, word = _options(found["what"]), found["word"].strip("'\"")
        known = [name.strip("'\"") for name in found["known"].split(", ")]
        hint = nearest(word, known) or f": choose from {', '.join(known)}"
        return f"{what}: invalid choice: {word!r}{hint}"
    if found := _KIND.fullmatch(message):
        word = found["word"].strip("'\"")
        return f"{_options(found['what'])} {word}: must be {_KINDS[found['kind']]}"
    if verbs and message.startswith(_MISSING):
        return f"{message.removeprefix(_MISSING).strip()} is missing: choose from {', '.join(verbs)}"
    return message


def unknown_words(words: Sequence[str], command: str, options: Sequence[str], settings: Sequence[str] | None) -> str:
    """What is wrong with words that no option takes.

    Args:
        words: those that are left, in their order, `key=value` words among them.
        command: "prior-fast train".
        options: the options of the command.
        settings: the names of its settings; None if it takes none.
    """
    at, word = next(
        (at, word) for at, word in enumerate(words) if settings is None or "=" not in word or word.startswith("-")
    )
    key, value = _key_and_value(words, at)
    names = {option.strip("-").replace("-", "_"): option for option in options}
    option = names.get(closest(key, names) or "")
    name = closest(key, settings or ())
    if settings is not None:
        like_option = likeness(key, option.strip("-").replace("-", "_")) if option else 0.0
        if name and likeness(key, name) > like_option:
            unknown = f"unknown argument {word!r}: " if word.startswith("-") else ""
            return f"{unknown}settings are written key=value: did you mean {name}={value}?"
        if option is None and not word.startswith("-") and at and words[at - 1].endswith("="):
            return f"settings are written key=value, without blanks: did you mean {words[at - 1]}{word}?"
    if settings is None and "=" in word and not word.startswith("-"):
        instead = f"; did you mean {option} {value}?" if option else ""
        return f"unknown argument {word!r}: {command} takes no settings{instead}"
    return f"unknown argument {word!r}{f': did you mean {option!r}?' if option else ''}"


def option_as_setting(word: str, options: Sequence[str], settings: Sequence[str]) -> str | None:
    """What is wrong with a `key=value` word whose key is no setting, but an option without its dashes; None if not."""
    key, _, value = word.partition("=")
    names = {option.strip("-").replace("-", "_"): option for option in options}
    option = names.get(key.replace("-", "_"))
    if option is None or key in settings:
        return None
    return f"unknown setting {key!r}: did you mean {option} {value}?"


def _key_and_value(words: Sequence[str], at: int) -> tuple[str, str]:
    """The word at `at` and its neighbours read as a setting: `--batch-size 4`, `batch_size: 4`, `batch_size = 4`."""
    key, _, value = re.sub("[:=]", "=", words[at].lstrip("-"), count=1).partition("=")
    rest = list(words[at + 1 :])
    if not value and rest and rest[0] == "=":
        rest = rest[1:]
    if not value and rest and not rest[0].startswith("--"):
        value = rest[0].removeprefix("=")
    return key.replace("-", "_"), value or "VALUE"


def _options(what: str) -> str:
    """ "-h/--help" as "--help"; the padded name of a command as it is."""
    return what.strip().rpartition("/")[2] if what.startswith("-") else what.strip()
