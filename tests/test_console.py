"""Printed text is shown unchanged."""

import io

import pytest
from rich.console import Console

from prior_fast import console

HINT = "pip install 'prior-fast[dali]', then [bold]go on[/bold]"


def test_words_in_square_brackets_are_no_markup(capsys: pytest.CaptureFixture) -> None:
    console.stdout.print(HINT)
    console.print_table("a [table]", ("what", "[why]"), [(HINT, 1.0)])
    shown = capsys.readouterr().out
    assert shown.count(HINT) == 2
    assert "a [table]" in shown and "[why]" in shown


def test_nor_in_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(console, "stderr", screen)
    with console.progress("losses") as bar:
        bar.add_task(HINT, total=1, losses="[loss]")
    shown = screen.file.getvalue()
    assert "prior-fast[dali]" in shown and "[bold]" in shown and "[loss]" in shown
