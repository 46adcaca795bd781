"""The blocks of CONTRIBUTING.md that another test follows word for word."""

import re

from tests.pages.blocks import ROOT, Block

_TEST = ROOT / "tests/architecture/test_contributing.py"
SECTIONS = frozenset(re.findall(r'follow\(section\("(.+?)"\)', _TEST.read_text(encoding="utf-8")))


def is_followed(block: Block) -> bool:
    """Whether tests/architecture/test_contributing.py does what the block says."""
    return block.page == "CONTRIBUTING.md" and block.heading in SECTIONS
