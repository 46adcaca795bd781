"""Whether the links of a page lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.pages.blocks import ROOT, Link, Page, page

_TOCTREE = re.compile(r"(?:.*<)?([^<>]+?)>?")


def broken(source: Page, root: Path = ROOT) -> list[str]:
    """The links of a page that lead nowhere, each with the reason. Links to the net are only checked for their form."""
    found = []
    for link in [*source.links(), *_toctree(source)]:
        reason = _problem(link, root)
        if reason:
            found.append(f"{link.place}: {link.target}: {reason}")
    return found


def _problem(link: Link, root: Path) -> str:
    parts = urlsplit(link.target)
    if parts.scheme:
        fine = parts.scheme == "https" and "." in parts.netloc and not re.search(r"\s", link.target)
        return "" if fine or parts.scheme == "mailto" else "must be https://host/..."
    if not parts.path:
        return _missing_anchor(link.page, parts.fragment, root)
    target = (root / link.page).parent / unquote(parts.path)
    if not target.exists():
        return "there is no such file"
    path = target.resolve()
    if not path.is_relative_to(root.resolve()):
        return "leads out of the project"
    if not parts.fragment:
        return ""
    if path.suffix != ".md":
        return "only Markdown pages have anchors"
    return _missing_anchor(path.relative_to(root.resolve()).as_posix(), parts.fragment, root)


def _missing_anchor(name: str, anchor: str, root: Path) -> str:
    return "" if anchor in page(name, root).anchors() else f"{name} has no such heading"


def _toctree(source: Page) -> Iterator[Link]:
    """The entries of the site's tables of contents, with the ending that Sphinx adds."""
    for block in source.blocks():
        if block.language == "{toctree}":
            for line in block.text.split("\n"):
                match = _TOCTREE.fullmatch(line.strip())
                if match and not line.startswith(":"):
                    entry = (ROOT / source.name).parent / match[1]
                    endings = [ending for ending in (".md", ".rst") if entry.with_name(entry.name + ending).exists()]
                    yield Link(source.name, block.line, match[1] + (endings[0] if endings else ".md"))
