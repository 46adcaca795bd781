"""Paths of tables stay in the folder that the user gave."""

import os
import posixpath
from pathlib import Path

import pytest
from hypothesis import given, strategies

from prior_fast.prepare.paths import bad_name, irregular, is_file, path_inside

WORDS = strategies.lists(strategies.sampled_from(["..", ".", "", "a", "b.png", "root", "data"]), max_size=8)


@given(WORDS, strategies.booleans())
def test_a_path_never_leads_outside(words: list[str], absolute: bool) -> None:
    name = "/" * absolute + "/".join(words)
    absolute = name.startswith("/")
    found = path_inside(Path("/data/root"), name)
    meant = posixpath.normpath(posixpath.join("/data/root", name))
    inside = meant == "/data/root" or meant.startswith("/data/root/")
    # "../root" is refused too: what it means depends on the folder's name.
    assert (found is not None) == (inside if absolute else not posixpath.normpath(name).startswith(".."))
    if found is not None:
        assert inside
        assert posixpath.normpath(posixpath.join("/data/root", found)) == meant and ".." not in found.split("/")


def test_a_root_that_is_a_link_or_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert path_inside(tmp_path / "near", str(tmp_path / "far/a.png")) == "a.png"
    assert path_inside(tmp_path / "near", str(tmp_path / "near/a.png")) == "a.png"
    monkeypatch.chdir(tmp_path / "far")
    assert path_inside(Path("../near"), str(tmp_path / "near/a.png")) == "a.png"
    assert path_inside(Path(), "a/../../b.png") is None


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x7f", "a\u2028b", "\udcff", "x" * 1001])
def test_names_that_can_not_be_used(name: str) -> None:
    assert bad_name(name)


@pytest.mark.parametrize("name", ["", "a b.png", "Übung-1", "胸.png", "x" * 1000, "=1"])
def test_names_that_can_be_used(name: str) -> None:
    assert not bad_name(name)


def test_what_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert irregular(tmp_path / "pipe") and irregular(Path("/dev/null"))
    others = [tmp_path / name for name in ("file", "none", "loop", "x" * 300, "a\0b")]
    assert not any(map(irregular, [tmp_path, *others]))
    assert [is_file(path) for path in others] == [True, False, False, False, False]
