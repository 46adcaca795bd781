"""The page that shows the pictures: index.html, which uses no files outside its folder."""

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prior_fast.files import write_text

STYLE = """
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: #fff; color: #1c2430;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #dfe3e8; }
p { max-width: 48rem; }
nav a { margin-right: 1rem; }
a { color: #1f5fa8; }
.facts, figcaption, .absent { color: #566070; }
.absent { background: #f4f6f8; border-left: 3px solid #aeb8c4; padding: .6rem .9rem; }
figure { margin: 1.25rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .92rem; margin-top: .4rem; max-width: 52rem; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #e8ebef; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the page, and its caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: short name, for links and report.json.
        absent: the reason why this checkpoint or dataset lacks (a part of) the section; "" if it is complete.
        facts: numbers for report.json.
    """

    key: str
    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    absent: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def escape(text: str) -> str:
    """`text` in HTML, also in an attribute; what no page can hold, such as NUL or half a character, becomes U+FFFD."""
    return html.escape(
        "".join(
            "\ufffd" if unicodedata.category(each) in ("Cc", "Cs") and not each.isspace() else each for each in text
        )
    )


def write_page(folder: Path, title: str, facts: str, sections: Sequence[Section]) -> None:
    """Write index.html; all text is escaped."""
    links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in sections)
    body = "\n".join(_section(section) for section in sections)
    write_text(
        folder / "index.html",
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="facts">{escape(facts)}</p>
<nav>{links}</nav>
{body}
</body>
</html>
""",
    )


def _section(section: Section) -> str:
    parts = [f'<section id="{section.key}">', f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    if section.absent:
        parts.append(f'<p class="absent">{escape(section.absent)}</p>')
    for picture in section.pictures:
        parts.append(
            f'<figure><img src="{escape(picture.file)}" alt="{escape(section.title)}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    if section.rows:
        parts.append(_table(section))
    return "\n".join([*parts, "</section>"])


def _table(section: Section) -> str:
    numeric = [
        all(isinstance(row[column], int | float) for row in section.rows) for column in range(len(section.header))
    ]

    def line(cells: Sequence[Any], tag: str) -> str:
        kinds = (' class="number"' if number else "" for number in numeric)
        return "<tr>" + "".join(f"<{tag}{kind}>{escape(str(c))}</{tag}>" for kind, c in zip(kinds, cells)) + "</tr>"

    body = "\n".join(line(row, "td") for row in section.rows)
    return f"<table>\n<thead>{line(section.header, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
