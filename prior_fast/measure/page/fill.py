"""Fills the tables of Markdown pages from result files, so that no figure is copied by hand.

A page has `<!-- table KIND FILE -->` and `<!-- end of table -->`, each on a line of its own that is not indented; the
text between them is replaced. FILE is a path below the folder of results. `<!-- table settings GROUP -->` is made from
the config instead, and has the settings of a group such as `model.image`; the group `run` has those without a dot.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path

from prior_fast.errors import RunError, UsageError
from prior_fast.files import write_text
from prior_fast.measure.page.kinds import KINDS
from prior_fast.measure.page.settings import settings_groups, settings_table, task_configs, task_table
from prior_fast.spelling import nearest

_BEGIN = re.compile(r"<!-- table (\S+) (\S+) -->")
_END = "<!-- end of table -->"
SETTINGS, TASK_SETTINGS = "settings", "task-settings"  # the kinds that are made from the configs


def fill_pages(pages: list[Path], results: Path, check: bool) -> list[Path]:
    """Fill the tables of the pages; returns those that changed.

    check: write nothing.

    Raises:
        UsageError: a page or a result file can't be read, or the marker of a table is wrong; names page and line.
        RunError: with `check`, a page is out of date.
    """
    changed = {}
    for page in pages:
        try:
            text = page.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{page} can't be read: {error.strerror}") from None
        filled = fill(text, results, str(page))
        if filled != text:
            changed[page] = filled
    if check and changed:
        raise RunError(
            f"{', '.join(map(str, changed))}: out of date with the result files in {results}; run without --check"
        )
    for page, filled in changed.items():
        write_text(page, filled)
    return list(changed)


def fill(text: str, results: Path, name: str) -> str:
    """`text` with its tables filled again.

    name: the page's name, for messages.

    Raises:
        UsageError: see `fill_pages`.
    """
    lines, out = text.split("\n"), []
    number = 0
    while number < len(lines):
        line = lines[number]
        out.append(line)
        number += 1
        mark = _BEGIN.fullmatch(line.rstrip())
        if mark is None:
            if line.startswith("<!-- table"):
                raise UsageError(f"{name}, line {number}: must be <!-- table KIND FILE -->, not {line.strip()}")
            continue
        rest = [place for place in range(number, len(lines)) if lines[place].strip() == _END]
        if not rest:
            raise UsageError(f"{name}, line {number}: the table has no {_END}")
        out += ["", *made(mark[1], mark[2], results, f"{name}, line {number}"), "", lines[rest[0]]]
        number = rest[0] + 1
    return "\n".join(out)


def made(kind: str, file: str, results: Path, where: str) -> list[str]:
    """The lines of one table."""
    if kind == SETTINGS:
        _require(file, settings_groups(), f"{where}: unknown group of settings")
        return settings_table(file)
    if kind == TASK_SETTINGS:
        _require(file, task_configs(), f"{where}: unknown task")
        return task_table(file)
    _require(kind, (*KINDS, SETTINGS, TASK_SETTINGS), f"{where}: unknown table")
    path = results / file
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {path} can't be read: {error}") from None
    try:
        return KINDS[kind](report)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{where}: {path} is no report for a table {kind!r}: {error!r}") from None


def _require(word: str, known: Collection[str], problem: str) -> None:
    if word not in known:
        raise UsageError(f"{problem} {word!r}{nearest(word, known) or ': choose from ' + ', '.join(known)}")
