"""Links between the pages, to files and to headings lead somewhere."""

from pathlib import Path

import pytest

from tests.pages.blocks import page, page_names
from tests.pages.links import broken


@pytest.mark.parametrize("name", page_names())
def test_every_link_leads_somewhere(name: str) -> None:
    assert broken(page(name)) == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("there.md", ""),
        ("there.md#a-heading-of-code", ""),
        ("there.md#twice-1", ""),
        ("there.md#own", ""),
        ("#here", ""),
        ("sub/picture.png", ""),
        ("https://example.org/a?b#c", ""),
        ("nowhere.md", "no such file"),
        ("There.md", "no such file"),
        ("there.md#heading", "there.md has no such heading"),
        ("there.md#twice-2", "there.md has no such heading"),
        ("#there", "page.md has no such heading"),
        ("sub/picture.png#part", "only Markdown pages have anchors"),
        ("../outside.md", "leads out of the project"),
        ("http://example.org", "must be https"),
        ("https://example", "must be https"),
    ],
)
def test_a_link_to_nowhere_is_found(target: str, reason: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/picture.png").touch()
    (tmp_path / "outside.md").touch()
    (root / "there.md").write_text('# A heading, of `code`!\n## Twice\n## Twice\n<a id="own"></a>\n')
    for text in (
        f"# Here\n\n[words]({target})\n",
        f"# Here\n\n![words]({target})\n",
        f'# Here\n<img src="{target}">\n',
    ):
        (root / "page.md").write_text(text)
        page.cache_clear()
        found = broken(page("page.md", root), root)
        assert bool(found) == bool(reason) and all(reason in line for line in found), (text, found)
