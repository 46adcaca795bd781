"""Figures of the pages, traced to the files of measurements that they come from.

    <!-- figure: SOURCE NUMBER -->

beside a figure says where NUMBER comes from. SOURCE is `FILE#/POINTER`, a file below the root and a JSON pointer (RFC
6901) to a number in it, or to a list of numbers, whose median it stands for; or several of these and plain numbers,
joined by ` * ` and ` / ` from left to right:

    <!-- figure: bench/results/nvidia-h200/steps.json#/b 69.9 -->
    <!-- figure: bench/results/nvidia-h200/train.json#/a / bench/results/nvidia-h200/steps.json#/b 27.2 -->
"""

import json
import re
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from tests.pages.blocks import ROOT

FIGURE = re.compile(r"<!-- figure: (\S.*?) (\S+) -->")
_MARK = "<!-- figure"
_UNITS = r"(?:ms|µs|us|s|min|minutes|seconds|hours|pairs/s|images/s|GB|GiB|MB|GB/s|TFLOP/s|%|×|x|times)"
_NUMBER = re.compile(rf"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?=\s?{_UNITS}(?![\w/]))")
_ROW = re.compile(r"^\|(.+)\|\s*$", re.MULTILINE)


def wrong_figures(text: str, root: Path = ROOT) -> list[str]:
    """The figures of a page that are not what their source says, each with the reason."""
    found = []
    if text.count(_MARK) != len(FIGURE.findall(text)):
        found = [f"{line}: must be <!-- figure: SOURCE NUMBER -->" for line in _odd_marks(text)]
    for source, number in FIGURE.findall(text):
        try:
            value = value_of(source, root)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            found.append(f"{source} {number}: can't be read: {error!r}")
            continue
        if not rounds_to(value, number):
            found.append(f"{source} is {value:.6g}, not {number}")
    return found


def _odd_marks(text: str) -> list[str]:
    """The lines with a comment of another form."""
    return [line.strip() for line in text.split("\n") if line.count(_MARK) != len(FIGURE.findall(line))]


def rounds_to(value: float, number: str) -> bool:
    """Whether the value, rounded to the digits of a written number such as `1,831` or `0.70`, is that number."""
    plain = re.sub(r"[^\d.-]", "", number)
    digits = len(plain.partition(".")[2])
    # Half of the last digit, and what binary fractions add to it.
    return abs(value - float(plain)) <= 0.5 * 10.0**-digits * (1 + 1e-9)


def value_of(source: str, root: Path = ROOT) -> float:
    """The number that a SOURCE stands for."""
    first, *rest = re.split(r" ([*/]) ", source)
    value = _term(first, root)
    for operator, term in zip(rest[::2], rest[1::2]):
        value = value * _term(term, root) if operator == "*" else value / _term(term, root)
    return value


def _term(term: str, root: Path) -> float:
    file, mark, pointer = term.partition("#")
    if not mark:
        return float(term)
    value = _content(root / file)
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{pointer} is no number")
    return float(median(numbers))


@cache
def _content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def untraced(section: str, folder: Path = ROOT) -> list[str]:
    """What of a section of measurements has no source.

    The last cell of a row links to files below bench/results/. Each number with a unit in the other cells has a comment
    in the section whose files are among them, and a row has one number at least. The number of each comment is shown.
    A paragraph with such numbers needs comments of its own, or a link to a page or a file.

    folder: that of the page.
    """
    figures = FIGURE.findall(section)
    shown = FIGURE.sub("", section)
    found = [f"{number} of {source} is not shown" for source, number in figures if not _shows(shown, number)]
    rows = _rows(shown)
    found += [] if rows else ["the section has no table with rows"]
    for row in rows:
        found += [f"|{row}|: {problem}" for problem in _row_problems(row, figures, folder)]
    for paragraph in re.split(r"\n\s*\n", _ROW.sub("", section)):
        numbers = set(_NUMBER.findall(FIGURE.sub("", paragraph)))
        if numbers and not FIGURE.search(paragraph) and not re.search(r"\]\((?!http)[^)]+\)", paragraph):
            found.append(f"{' '.join(paragraph.split())[:80]}: no source of {', '.join(sorted(numbers))}")
    return found


def _rows(text: str) -> list[str]:
    """The rows of tables, without headers and the lines of dashes below them."""
    rows = _ROW.findall(text)
    rules = [number for number, row in enumerate(rows) if re.fullmatch(r"[\s|:-]+", row)]
    left_out = {*rules, *(number - 1 for number in rules)}
    return [row for number, row in enumerate(rows) if number not in left_out]


def _row_problems(row: str, figures: list[tuple[str, str]], folder: Path) -> list[str]:
    *cells, last = row.split("|")
    files = [link for link in re.findall(r"\]\(([^)#]+)", last) if "bench/results/" in link]
    problems = [] if files else ["its last cell has no link to a file below bench/results/"]
    problems += [f"there is no {link}" for link in files if not (folder / link).is_file()]
    traced = {number for source, number in figures if set(_files(source)) <= set(files)}
    numbers = set(_NUMBER.findall(" | ".join(cells)))
    problems += [] if numbers else ["it has no number with a unit"]
    return problems + [f"{number} has no figure of the row's files" for number in sorted(numbers - traced)]


def _files(source: str) -> list[str]:
    return [term.partition("#")[0] for term in re.split(r" [*/] ", source) if "#" in term]


def _shows(text: str, number: str) -> bool:
    return re.search(rf"(?<![\w.,]){re.escape(number)}(?![\w.]*\d)", text) is not None
