"""Texts from data in pictures: any characters and any length, and never a formula."""

import textwrap
import unicodedata

LONGEST = 60  # characters of a name in a title, a legend or beside an axis


def one_line(text: str, longest: int = LONGEST) -> str:
    """`text` in one line of at most `longest` characters, without characters that can't be drawn."""
    # Far longer texts are cut first: nobody reads them, and every step below would take its time.
    cleaned = " ".join(_drawable(text[: 4 * longest]).split())
    return cleaned if len(cleaned) <= longest and len(text) <= 4 * longest else f"{cleaned[: longest - 3]}..."


def wrap(text: str, width: int, lines: int = 4) -> str:
    """`text` in at most `lines` lines of `width` characters."""
    short = one_line(text, 2 * width * lines)
    return "\n".join(textwrap.wrap(short, width, max_lines=lines, placeholder=" ..."))


def no_formula(text: str) -> str:
    """`text` for matplotlib, shown as it is: a dollar sign would begin a formula, and "_" would hide a legend's line.

    Lines are kept; characters that can't be drawn are left out.
    """
    plain = "\n".join(_drawable(line) for line in text.split("\n")).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def label(text: str, longest: int = LONGEST) -> str:
    """A name from data as a title, as a line of a legend or beside an axis."""
    return no_formula(one_line(text, longest))


def _drawable(text: str) -> str:
    """Without control characters, marks of direction, and halves of characters; spaces for all kinds of space."""
    kept = (" " if each.isspace() else each for each in text if each.isspace() or unicodedata.category(each)[0] != "C")
    return "".join(kept)
