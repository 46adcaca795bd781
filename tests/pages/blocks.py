"""What the pages hold: code blocks, code in the text, links, headings and comments, read by a Markdown parser."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", "bench/results/*/*.md")
INDENTED = "indented"  # the language of a block without a fence
_ATTRIBUTE = re.compile(r"""<\w+\s[^>]*?\b(?:href|src|id|name)\s*=\s*["']([^"']*)["']""")


@dataclass(frozen=True)
class Block:
    """A code block, or code between backticks.

    Attributes:
        page: the page, below the root of the project.
        line: its first line, counted from 1.
        language: the first word after the fence; "" for none, INDENTED for a block without a fence.
        heading: the text of the heading above it.
    """

    page: str
    line: int
    language: str
    text: str
    heading: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Link:
    """A link or an image: its page, its line, and its target as it is written."""

    page: str
    line: int
    target: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A page: its path below the root, and its tokens."""

    name: str
    tokens: tuple[Token, ...]
    text: str

    def blocks(self) -> list[Block]:
        """The fenced and indented blocks, in their order."""
        found = []
        for token, heading in self._walk():
            if token.type in ("fence", "code_block"):
                words = token.info.split() if token.type == "fence" else [INDENTED]
                line = token.map[0] + (2 if token.type == "fence" else 1)  # type: ignore[index]
                found.append(Block(self.name, line, words[0] if words else "", token.content, heading))
        return found

    def codes(self) -> list[Block]:
        """The code between backticks."""
        return [
            Block(self.name, line, "", " ".join(child.content.split()))
            for line, child in self._inline()
            if child.type == "code_inline"
        ]

    def links(self) -> list[Link]:
        """Links and images, those in HTML included."""
        found = []
        for line, child in self._inline():
            target = {"link_open": "href", "image": "src"}.get(child.type)
            if target:
                found.append(Link(self.name, line, str(child.attrGet(target))))
        return found + [Link(self.name, line, target) for line, name, target in self._html() if name in ("href", "src")]

    def anchors(self) -> set[str]:
        """What `#...` may name: the headings by the rules of GitHub, and `id` and `name` of HTML elements."""
        found = {target for _, name, target in self._html() if name in ("id", "name")}
        counts: dict[str, int] = {}
        for _, text in self.headings():
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = counts.get(slug, 0)
            counts[slug] = number + 1
            found.add(f"{slug}-{number}" if number else slug)
        return found

    def headings(self) -> list[tuple[int, str]]:
        """Line and text of each heading, without its marks."""
        found = []
        for token, after in zip(self.tokens, self.tokens[1:]):
            if token.type == "heading_open":
                text = "".join(child.content for child in after.children or [] if child.type in ("text", "code_inline"))
                found.append((token.map[0] + 1, text))  # type: ignore[index]
        return found

    def section(self, heading: str) -> str:
        """The source under a heading, up to the next one of its level or above; "" if there is none."""
        levels = {token.map[0]: int(token.tag[1]) for token in self.tokens if token.type == "heading_open"}  # type: ignore[index]
        lines = self.text.split("\n")
        for line, text in self.headings():
            if text == heading:
                after = [other for other, level in levels.items() if other >= line and level <= levels[line - 1]]
                return "\n".join(lines[line : min(after, default=len(lines))])
        return ""

    def _walk(self) -> Iterator[tuple[Token, str]]:
        heading = ""
        for token, after in zip(self.tokens, (*self.tokens[1:], None)):
            if token.type == "heading_open" and after is not None:
                heading = after.content
            yield token, heading

    def _inline(self) -> Iterator[tuple[int, Token]]:
        line = 1
        for token in self.tokens:
            line = token.map[0] + 1 if token.map else line
            at = line
            for child in token.children or []:
                at += child.type in ("softbreak", "hardbreak")
                yield at, child

    def _html(self) -> Iterator[tuple[int, str, str]]:
        for line, token in [*self._inline(), *((t.map[0] + 1, t) for t in self.tokens if t.map)]:
            if token.type in ("html_inline", "html_block"):
                for match in _ATTRIBUTE.finditer(token.content):
                    name = re.findall(r"(\w+)\s*=\s*[\"']$", match[0][: match.start(1) - match.start()])[0]
                    yield line, name, match[1]


@cache
def page(name: str, root: Path = ROOT) -> Page:
    """The page at a path below `root`."""
    text = (root / name).read_text(encoding="utf-8")
    return Page(name, tuple(MarkdownIt("commonmark").enable("table").parse(text)), text)


def page_names(root: Path = ROOT) -> list[str]:
    """The pages of the project, sorted."""
    return sorted({path.relative_to(root).as_posix() for pattern in PAGES for path in root.glob(pattern)})
