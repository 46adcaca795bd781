import functools
import json
import re
import shutil

import pytest

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import Interrupted, RunError, UsageError
from prior_fast.prepare.studies import chunks, pipeline
from prior_fast.prepare.studies.merge import merge_shards
from prior_fast.prepare.studies.pipeline import prepare_studies
from prior_fast.prepare.studies.shards import Shard, prepare_shard
from prior_fast.radiology.tokenizer import train_tokenizer
from tests.prepare.mimic_tree import MimicTree, contents, mimic_options, small_tree


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(pipeline, "make_tasks", functools.partial(chunks.make_tasks, size=4))


@pytest.fixture
def tree(tmp_path) -> MimicTree:
    """Studies of all splits with annotations, some of them broken or left out; 6 chunks of 4."""
    tree = small_tree(tmp_path / "tree")
    tree.add(50_000_100, sentences=3)
    tree.add(50_000_101, views=("AP", "LATERAL"))
    (broken,) = tree.add(50_000_102, split="test")
    broken.write_bytes(b"")
    (marked,) = tree.add(50_000_103, split="validate", size=(448, 896))
    box = {"x": 100, "y": 400, "width": 40, "height": 80}
    tree.annotations = [{"dicom_id": marked.stem, "finding": "Edema", "side": "left", "severity": "mild", **box}]
    tree.add(50_000_104, views=("LATERAL",))
    tree.write()
    return tree


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def shard(tree, out, index, count, **settings):
    return prepare_shard(mimic_options(images=tree.root, out=out, **settings), Shard(index, count))


def both(tree, out, **settings):
    """Prepare both of two shards."""
    for index in (1, 2):
        shard(tree, out, index, 2, **settings)


def whole(tree, tmp_path, **settings):
    """The dataset of a run without shards."""
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole", **settings))
    return contents(tmp_path / "whole")


def interrupted(*_arguments, **_options):
    raise KeyboardInterrupt


def partial_files(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.with_name("out.partial").iterdir()}


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_merged_shards_are_the_dataset_of_one_run(tree, out, tmp_path, count):
    before = [shard(tree, out, index, count) for index in reversed(range(1, count + 1))]
    assert not out.exists()
    report = merge_shards(out)
    expected = whole(tree, tmp_path)
    assert {"annotations.parquet", "dataset.json", "images.npy", "manifest.parquet", "rejected.csv"} < expected.keys()
    assert contents(out) == expected
    PreparedDataset.open(out, verify="full")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]
    one = json.loads((tmp_path / "whole" / "report.json").read_text(encoding="utf-8"))
    names = ("splits", "rejected", "broken_files", "fingerprint", "decode")
    assert [report[name] for name in names] == [one[name] for name in names]
    for split, counts in one["splits"].items():
        assert sum(each["splits"][split]["images"] for each in before) == counts["images"]


def test_what_was_merged_is_known_again(tree, out):
    both(tree, out)
    merge_shards(out)
    before = contents(out)
    assert merge_shards(out)["already_done"]
    assert shard(tree, out, 1, 2)["already_done"]
    assert prepare_studies(mimic_options(images=tree.root, out=out))["already_done"]
    with pytest.raises(UsageError, match="with other options"):
        shard(tree, out, 1, 2, min_sentences=5)
    assert contents(out) == before


@pytest.mark.parametrize("settings", [{"min_sentences": 5}, {"decode": "fast"}, {"tokenizer": "own"}])
def test_options_reach_the_merged_dataset(tree, out, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    train_tokenizer(["heart nodule pleural"] * 2).save_pretrained(tmp_path / "own")
    both(tree, out, **settings)
    merge_shards(out)
    assert contents(out) == whole(tree, tmp_path, **settings)


def test_reports_of_a_tree_of_their_own(tree, out, tmp_path, monkeypatch):
    for path in tree.root.glob("files/*/*/*.txt"):
        target = tmp_path / "reports" / path.relative_to(tree.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    monkeypatch.chdir(tmp_path)
    for index in (1, 2):
        words = ["--images", "tree", "--reports", "reports", "--out", "out", "--workers", "1"]
        assert main(["prepare", "mimic", *words, "--shard", f"{index}/2"]) == 0
    # The merge may start in another folder: the shards record where the trees are.
    monkeypatch.chdir(tmp_path.parent)
    merge_shards(out)
    assert contents(out) == whole(tree, tmp_path, reports=tmp_path / "reports")


def test_the_commands_say_what_comes_next(tree, out, capsys):
    words = ["prepare", "mimic", "--images", str(tree.root), "--out", str(out), "--workers", "1"]
    for index in (1, 2):
        assert main([*words, "--shard", f"{index}/2"]) == 0
    shown = capsys.readouterr().out
    lines = ("Prepared, shard 2/2", "images per second and core", f"when all are: prior-fast prepare merge --out {out}")
    assert all(line in shown for line in lines)
    assert main(["prepare", "merge", "--out", str(out)]) == 0
    assert "merged from 2 shards" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"--shard {text}: the shards of 3 are 1/3 to 3/3") for text in ("4/3", "0/3")),
        *((text, f"--shard {text}: there must be 1 shard or more, not {text[2:]}") for text in ("1/0", "1/-2")),
        *((text, f"--shard must be I/N, such as 1/8 for the first of 8 shards, not {text!r}") for text in ("2", "a/b")),
    ],
)
def test_shards_that_there_can_not_be(tree, out, text, message, capsys):
    assert main(["prepare", "mimic", "--images", str(tree.root), "--out", str(out), "--shard", text]) == 2
    assert capsys.readouterr().err == f"prior-fast: {message}\n"
    assert not out.with_name("out.partial").exists()


def test_a_missing_shard(tree, out, capsys):
    assert main(["prepare", "merge", "--out", str(out)]) == 2
    assert re.fullmatch("prior-fast: there are no shards in .*\n", capsys.readouterr().err)
    for index in (1, 3):
        shard(tree, out, index, 4)
    with pytest.raises(UsageError, match=r"shards 2/4, 4/4 missing; run `prior-fast prepare mimic --shard 2/4 ...`"):
        merge_shards(out)


def test_an_incomplete_shard_goes_on_where_it_was(tree, out, tmp_path, monkeypatch):
    shard(tree, out, 1, 2)
    made, real = [], chunks._prepare
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_prepare", lambda task: interrupted() if made else made.append(task.index) or real(task))
        with pytest.raises(Interrupted, match="start the same command again"):
            shard(tree, out, 2, 2)
    with pytest.raises(UsageError, match=r"can't be merged yet: shard 2/2 not complete; run .* --shard 2/2"):
        merge_shards(out)
    monkeypatch.setattr(chunks, "_prepare", lambda task: made.append(task.index) or real(task))
    shard(tree, out, 2, 2)
    assert made == [1, 3, 5]
    merge_shards(out)
    assert contents(out) == whole(tree, tmp_path)


def test_a_shard_run_twice_changes_nothing(tree, out, monkeypatch):
    first = shard(tree, out, 2, 3)
    before = partial_files(out)
    monkeypatch.setattr(chunks, "_prepare", None)
    second = shard(tree, out, 2, 3, workers=2)
    assert partial_files(out) == before
    assert {**first, "seconds": 0, "workers": 2} == {**second, "seconds": 0}


@pytest.mark.parametrize("damage", ["removed", "cut", "emptied"])
def test_a_damaged_chunk_is_named_and_made_again(tree, out, tmp_path, damage):
    both(tree, out)
    path = next(out.with_name("out.partial").glob("chunk-000003-*.bin"))
    data = path.read_bytes()
    path.unlink() if damage == "removed" else path.write_bytes(data[:1000] if damage == "cut" else b"")
    with pytest.raises(RunError, match=r"1 chunk\(s\) of shard 2/2 are missing or damaged; run that again"):
        merge_shards(out)
    shard(tree, out, 2, 2)
    merge_shards(out)
    assert contents(out) == whole(tree, tmp_path)


def test_chunks_and_records_that_do_not_fit(tree, out):
    both(tree, out)
    partial = out.with_name("out.partial")
    path = partial / "shard-1-of-2.json"
    record = {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name != "seal"}
    first, third = (next(partial.glob(f"chunk-00000{index}-*.bin")) for index in (0, 2))
    third.write_bytes(first.read_bytes())  # four studies are missing, four are there twice
    with pytest.raises(RunError, match=r"chunk-000002-\w+.bin misses studies of its chunk; remove it, run shard 1/2"):
        merge_shards(out)
    for listed in (record["chunks"][:-1], record["chunks"][::-1]):
        path.write_text(json.dumps({**record, "chunks": listed}), encoding="utf-8")
        with pytest.raises(UsageError, match="shard 1/2 lists other chunks than its share; run it again"):
            merge_shards(out)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"shard-1-of-2.json is no record of a shard .* remove it and run that shard"):
        merge_shards(out)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"min_sentences": 5}, "min-sentences: 4 and 5"),
        ({"decode": "fast"}, "decode: exact and fast"),
        ({"tokenizer": "own"}, "tokenizer: train and own"),
    ],
)
def test_shards_with_other_options(tree, out, tmp_path, monkeypatch, settings, difference):
    monkeypatch.chdir(tmp_path)
    train_tokenizer(["heart nodule pleural"] * 2).save_pretrained(tmp_path / "own")
    shard(tree, out, 1, 2)
    before = partial_files(out)
    with pytest.raises(UsageError, match=rf"shard 1/2 and shard 2/2 differ \(--{difference}\); give the same"):
        shard(tree, out, 2, 2, **settings)
    assert partial_files(out) == before
    # Jobs that start at the same moment do not see each other; the merge does.
    shard(tree, out.with_name("other"), 2, 2, **settings)
    shutil.copytree(out.with_name("other.partial"), out.with_name("out.partial"), dirs_exist_ok=True)
    with pytest.raises(UsageError, match=rf"differ \(--{difference}\)"):
        merge_shards(out)


def test_two_numbers_of_shards(tree, out):
    shard(tree, out, 1, 2)
    before = partial_files(out)
    with pytest.raises(UsageError, match="has shard 1/2 and shard 1/3, of another number; give the same"):
        shard(tree, out, 1, 3)
    assert partial_files(out) == before
    shard(tree, out.with_name("other"), 2, 3)
    shutil.copytree(out.with_name("other.partial"), out.with_name("out.partial"), dirs_exist_ok=True)
    with pytest.raises(UsageError, match="has shard 1/2 and shard 2/3, of another number"):
        merge_shards(out)


def test_tables_that_have_changed(tree, out, tmp_path):
    shard(tree, out, 1, 2)
    tree.chexpert[0]["Edema"] = -1.0
    tree.write()
    with pytest.raises(UsageError, match=r"differ \(source tables: \w+ and \w+\)"):
        shard(tree, out, 2, 2)
    tree.chexpert[0]["Edema"] = 1.0
    tree.write()
    shard(tree, out, 2, 2)
    tree.chexpert[0]["Edema"] = 0.0
    tree.write()
    with pytest.raises(UsageError, match="this has changed: source tables; run all shards again"):
        merge_shards(out)


def test_what_is_there_is_left_alone(tree, out):
    both(tree, out)
    before = partial_files(out)
    with pytest.raises(UsageError, match="holds shards: complete them and `prior-fast prepare merge"):
        prepare_studies(mimic_options(images=tree.root, out=out))
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file"):
        merge_shards(out)
    out.unlink()
    shutil.copytree(tree.root, out)
    with pytest.raises(UsageError, match="is not empty"):
        merge_shards(out)
    assert partial_files(out) == before


def test_strict_stops_the_shard_that_has_the_broken_file(tree, out, capsys):
    # The study with the empty image is in the last of the chunks, so in the second of two shards.
    words = ["prepare", "mimic", "--images", str(tree.root), "--out", str(out), "--strict", "--shard"]
    assert main([*words, "1/2"]) == 0
    capsys.readouterr()
    assert main([*words, "2/2"]) == 1
    assert "--strict: study 50000102" in capsys.readouterr().err
    assert main(["prepare", "merge", "--out", str(out)]) == 2
    assert "shard 2/2 not complete" in capsys.readouterr().err


def test_a_merge_that_failed_can_be_started_again(tree, out, tmp_path, monkeypatch):
    both(tree, out)

    for module, step in ((pipeline.assemble, "write_dataset"), (pipeline, "clean")):
        assert not out.exists()
        with monkeypatch.context() as patch:
            patch.setattr(module, step, interrupted)
            with pytest.raises(Interrupted, match="start the same command again"):
                merge_shards(out)
    assert merge_shards(out)["already_done"]
    assert not out.with_name("out.partial").exists()
    assert contents(out) == whole(tree, tmp_path)
