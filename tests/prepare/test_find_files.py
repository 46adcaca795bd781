import pytest

from prior_fast.prepare.find_files import FileFinder, FileNotFound, LeadsOutside


def tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return FileFinder(root)


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("a/b", "a/b.png"),
        ("a/b.jpg", "a/b.png"),
        ("a/b.jpg", "A/B.DCM"),
        ("b.jpg", "deeper/a/b.jpg"),
        ("set/v1/a/b.jpg", "a/b.jpg"),
        ("1.2.840.5", "x/1.2.840.5.dcm"),
        ("1.2.840.5.dcm", "x/1.2.840.5"),
        ("b.jpg", "b"),
        ("patient1/study2/view1_frontal.jpg", "PNG/train/patient1/study2/view1_frontal.png"),
    ],
)
def test_names_that_need_not_be_exact(tmp_path, wanted, there):
    finder = tree(tmp_path, there, "other/c.png", "patient1/study1/view1_frontal.png")
    assert finder.find(wanted) == there


def test_an_exact_path_is_taken_before_all_others(tmp_path):
    finder = tree(tmp_path, "a/b.jpg", "c/b.jpg", "a/b.png")
    assert finder.find("a/b.jpg") == "a/b.jpg" and finder.elsewhere == 0
    assert finder.find("c/b") == "c/b.jpg" and finder.elsewhere == 1


def test_the_folders_decide_among_files_of_one_name(tmp_path):
    finder = tree(tmp_path, "x/p1/s1/view.png", "x/p2/s1/view.png", "x/p2/s2/view.png")
    assert finder.find("train/p2/s1/view.jpg") == "x/p2/s1/view.png"
    with pytest.raises(FileNotFound, match=r"3 files fit: x/p1/s1/view.png, x/p2/s1/view.png, \.\.\."):
        finder.find("view.jpg")
    with pytest.raises(FileNotFound, match="2 files fit"):
        finder.find("s1/view.jpg")


def test_the_same_format_is_preferred_elsewhere(tmp_path):
    assert tree(tmp_path, "x/b.png", "x/b.jpg").find("b.jpg") == "x/b.jpg"


def test_absolute_paths(tmp_path):
    finder = tree(tmp_path / "in", "a.png")
    (tmp_path / "out.png").write_bytes(b"")
    assert finder.find(str(tmp_path / "in/a.png")) == "a.png"
    with pytest.raises(LeadsOutside, match="leads outside the folder"):
        finder.find(str(tmp_path / "out.png"))
    assert finder.find("/elsewhere/once/a.png") == "a.png"


@pytest.mark.parametrize("name", ["none.png", "", "  ", "a/", "."])
def test_what_is_not_there(tmp_path, name):
    with pytest.raises(FileNotFound):
        tree(tmp_path, "a/b.png").find(name)


def test_hidden_files_are_not_found_and_loops_of_links_end(tmp_path):
    finder = tree(tmp_path, ".hidden/b.png", "a/._c.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    for name in ("b.png", "_c.png"):
        with pytest.raises(FileNotFound):
            finder.find(name)


def test_a_linked_folder_is_followed(tmp_path):
    tree(tmp_path / "far", "b.png")
    (tmp_path / "near").mkdir()
    (tmp_path / "near/link").symlink_to(tmp_path / "far")
    assert FileFinder(tmp_path / "near").find("b.jpg") == "link/b.png"
