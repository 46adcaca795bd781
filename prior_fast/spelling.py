"""Suggestions for misspelled words, in every message that refuses one."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """ ": did you mean 'x'?" with the known word nearest to `word`; "" if none is near.

    The last part of dotted names is compared too: "epochs" is near "train.epochs".
    """
    known = list(known)
    last_parts = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    last_part = word.rsplit(".", 1)[-1]
    close = [last_parts[last_part]] if last_part in last_parts else difflib.get_close_matches(word, known, 1, 0.6)
    close = close or [last_parts[part] for part in difflib.get_close_matches(last_part, last_parts, 1, 0.6)]
    return f": did you mean {close[0]!r}?" if close else ""
