"""Suggestions for misspelled words, in every message that refuses one."""

import difflib
from collections.abc import Iterable, Sequence

_NEAR, _VERY_NEAR = 0.6, 0.8


def nearest(word: str, known: Iterable[str]) -> str:
    """ ": did you mean 'x'?" with the known word nearest to `word`; "" if none is near (see `closest`)."""
    close = closest(word, known)
    return f": did you mean {close!r}?" if close else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to `word`, in small or capital letters; None if none is near.

    Dotted names are compared whole first, then their last parts: those with the same beginning before the others.
    "epochs" is near "train.epochs", and "model.bank.prototype" is nearer to "model.bank.prototypes" than to
    "loss.prototype".
    """
    known = list(known)
    begin, dot, last = word.rpartition(".")
    if dot:
        there = {name.rpartition(".")[2]: name for name in reversed(known) if name.rpartition(".")[0] == begin}
        found = _best(word, known, _VERY_NEAR) or there.get(_best(last, list(there), _NEAR) or "")
        if found:
            return found
    parts = {name.rpartition(".")[2]: name for name in reversed(known)}
    if last in parts:
        return parts[last]
    found = _best(word, known, _NEAR) or parts.get(_best(last, list(parts), _NEAR) or "")
    # "lr" is learning_rate.
    return found or {_initials(part): name for part, name in reversed(parts.items())}.get(last.lower())


def _initials(name: str) -> str:
    """The first letters of a name of several words, in small letters; "" of one word."""
    words = name.lower().strip("-").replace("-", "_").split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else ""


def likeness(word: str, known: str) -> float:
    """How like two words are, 0 to 1; of a dotted known name the last part alone may be meant."""
    parts = (known, known.rpartition(".")[2])
    return max(difflib.SequenceMatcher(None, word.lower(), part.lower()).ratio() for part in parts)


def _best(word: str, known: Sequence[str], cutoff: float) -> str | None:
    lower = {name.lower(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.lower(), lower, 1, cutoff)
    return lower[close[0]] if close else None
