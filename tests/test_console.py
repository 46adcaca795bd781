"""Printed text is shown unchanged; in a terminal progress is a bar."""

import io

import pytest
from rich.console import Console

from prior_fast import console
from prior_fast.console.log import LogBar

HINT = "pip install 'prior-fast[dali]', then [bold]go on[/bold]"


class Screen(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal in place of standard error."""
    monkeypatch.setenv("TERM", "xterm")
    screen = Console(file=Screen(), force_terminal=True, width=200, markup=False)
    monkeypatch.setattr(console, "stderr", screen)
    return screen


def test_words_in_square_brackets_are_no_markup(capsys: pytest.CaptureFixture) -> None:
    console.stdout.print(HINT)
    console.print_table("a [table]", ("what", "[why]"), [(HINT, 1.0)])
    shown = capsys.readouterr().out
    assert shown.count(HINT) == 2
    assert "a [table]" in shown and "[why]" in shown


def test_nor_in_a_progress_bar(screen: Console) -> None:
    with console.progress("losses") as bar:
        bar.add_task(HINT, total=1, losses="[loss]")
    shown = screen.file.getvalue()
    assert "prior-fast[dali]" in shown and "[bold]" in shown and "[loss]" in shown


def test_what_a_command_is_busy_with_is_a_row_of_the_bar_while_it_lasts(screen: Console) -> None:
    with console.progress("losses") as bar:
        bar.add_task("stage 1", total=10, losses="loss 3")
        with console.busy("compiling stage 1"):
            assert [task.description for task in bar.tasks] == ["stage 1", "compiling stage 1"]
            bar.refresh()
        assert [task.description for task in bar.tasks] == ["stage 1"]
    assert "compiling stage 1" in screen.file.getvalue()


def test_without_a_bar_it_has_one_of_its_own_that_leaves_nothing(screen: Console) -> None:
    with console.busy("checking images.npy", total=2) as advance:
        advance(1)
    shown = screen.file.getvalue()
    assert "checking images.npy" in shown and "2/2" not in shown
    assert shown.endswith("\x1b[?25h") or "checking" not in shown.rsplit("\n", 1)[-1]


@pytest.mark.parametrize(
    ("term", "forced", "file", "lines"),
    [
        ("xterm", True, Screen, False),
        ("dumb", True, Screen, True),
        ("", False, io.StringIO, True),
        ("xterm", True, io.StringIO, True),  # FORCE_COLOR in a pipe, as in Jupyter
    ],
)
def test_a_bar_is_drawn_only_in_a_terminal(
    term: str, forced: bool, file: type[io.StringIO], lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(console, "stderr", Console(file=file(), force_terminal=forced))
    assert isinstance(console.progress(), LogBar) == lines


def test_only_the_first_process_of_a_run_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    bar = console.progress("losses")
    assert bar.disable and not isinstance(bar, LogBar)
    monkeypatch.setenv("RANK", "0")
    assert isinstance(console.progress("losses"), LogBar)
