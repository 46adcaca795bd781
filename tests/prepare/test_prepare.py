import argparse
import functools
import gzip
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prior_fast.cli import prepare
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError, UsageError
from prior_fast.prepare.studies import chunks, pipeline
from prior_fast.prepare.studies.pipeline import prepare_studies
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.tokenizer import train_tokenizer
from prior_fast.radiology.xray import read_xray
from tests.prepare.mimic_tree import MimicTree, contents, mimic_options, rejected, small_tree


def run(*words: object) -> int:
    """Run `prior-fast prepare mimic` with these arguments."""
    parser = argparse.ArgumentParser()
    prepare.add_parser(parser.add_subparsers())
    args = parser.parse_args(["prepare", "mimic", *(str(word) for word in words)])
    return args.run(args)


@pytest.fixture
def tree(tmp_path) -> MimicTree:
    return small_tree(tmp_path / "tree")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def reasons(tree: MimicTree, out, **settings) -> dict[str, str]:
    """Prepare the tree; the reason for each file that was left out."""
    prepare_studies(mimic_options(images=tree.write(), out=out, **settings))
    return {row["file"]: row["reason"] for row in rejected(out)}


def folder(study_id: int) -> str:
    return f"files/p10/p{10_000_000 + study_id % 1000}/s{study_id}"


def test_the_command_prints_tables_and_writes_a_report(tree, out, capsys):
    tree.add(50_000_100, sentences=3)
    tree.write()
    assert run("--images", tree.root, "--out", out, "--workers", 1) == 0
    shown = capsys.readouterr().out
    assert "fewer than 4 sentences" in shown
    assert "images per second and core" in shown
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert sum(counts["studies"] for counts in report["splits"].values()) == 20
    assert report["rejected"] == [{"reason": "fewer than 4 sentences", "studies": 1, "files": 0}]
    assert run("--images", tree.root, "--out", out) == 0
    assert "nothing was changed" in capsys.readouterr().out


def test_studies_are_sorted_by_split_then_id(tree, out):
    prepare_studies(mimic_options(images=tree.root, out=out))
    ids = [PreparedDataset.open(out, split).study_ids.tolist() for split in ("train", "validate", "test")]
    assert PreparedDataset.open(out).study_ids.tolist() == [study for numbers in ids for study in numbers]
    assert all(numbers == sorted(numbers) for numbers in ids)


def test_labels_keep_blank_and_uncertain_apart(tree, out):
    prepare_studies(mimic_options(images=tree.root, out=out))
    dataset = PreparedDataset.open(out)
    edema = dataset.labels[:, CHEXPERT_LABELS.index("Edema")]
    np.testing.assert_array_equal(edema, [(1, 0, -1)[study % 50_000_000 % 3] for study in dataset.study_ids])
    assert np.isnan(np.delete(dataset.labels, CHEXPERT_LABELS.index("Edema"), axis=1)).all()


def test_without_labels_all_are_blank_and_a_line_says_so(tree, out, capsys):
    (tree.root / "mimic-cxr-2.0.0-chexpert.csv").unlink()
    assert run("--images", tree.root, "--out", out) == 0
    assert "mimic-cxr-2.0.0-chexpert.csv was not found: all labels are blank" in capsys.readouterr().err
    assert np.isnan(PreparedDataset.open(out).labels).all()


def test_gzipped_tables_and_the_files_folder_give_the_same(tree, out, tmp_path):
    prepare_studies(mimic_options(images=tree.root, out=out))
    for path in tree.root.glob("*.csv"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    prepare_studies(mimic_options(images=tree.root / "files", out=tmp_path / "second"))
    assert contents(out) == contents(tmp_path / "second")


@pytest.mark.parametrize("given", ["root", "files", "moved"])
def test_reports_may_lie_in_a_tree_of_their_own(tree, out, tmp_path, given):
    prepare_studies(mimic_options(images=tree.root, out=out))
    reports = tmp_path / "reports"
    for path in tree.root.glob("files/*/*/*.txt"):
        target = reports / path.relative_to(tree.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    if given == "moved":
        shutil.move(reports / "files", tmp_path / "elsewhere")
        reports = tmp_path / "elsewhere"
    settings = mimic_options(tree.root, tmp_path / "second", reports / "files" if given == "files" else reports)
    prepare_studies(settings)
    assert contents(out) == contents(tmp_path / "second")


def test_a_broken_image_costs_the_study_only_when_it_is_the_last(tree, out):
    first, second = tree.add(50_000_101, views=("AP", "PA"))
    first.write_bytes(b"")
    (only,) = tree.add(50_000_102)
    only.write_bytes(only.read_bytes()[:300])
    found = reasons(tree, out)
    assert found.pop(f"{folder(50_000_101)}/{first.name}") == "image not readable (the file is empty)"
    assert found.pop(f"{folder(50_000_102)}/{only.name}").startswith("image not readable (")
    assert found == {folder(50_000_102): "no readable frontal image"}
    dataset = PreparedDataset.open(out)
    (row,) = dataset.image_rows(dataset.study_ids.tolist().index(50_000_101))
    assert dataset.image_paths[row] == f"{folder(50_000_101)}/{second.name}"
    assert 50_000_102 not in dataset.study_ids


def test_reasons_of_the_filters(tree, out):
    tree.add(50_000_110, views=("LATERAL", ""))
    tree.add(50_000_111, views=("PA", "LL"))
    tree.add(50_000_112, views=("AP", "PA"))
    tree.split[-1]["split"] = "test"
    tree.add(50_000_113)
    tree.split.pop()
    tree.add(50_000_114, views=("AP", "PA"))
    tree.split.pop()
    tree.add(50_000_115)
    tree.metadata.pop()
    tree.add(50_000_116)
    tree.report(50_000_116).write_text("No sections at all.\n", encoding="utf-8")
    tree.add(50_196_495)
    tree.add(50_000_118, sentences=3)
    tree.add(50_000_119, views=("AP", "PA"))
    tree.metadata[-1]["subject_id"] = 10_999_999
    assert reasons(tree, out) == {
        folder(50_000_110): "no frontal view (ViewPosition LATERAL, empty)",
        f"{folder(50_000_111)}/{50_000_111:08x}-00000001.jpg": "not a frontal view (ViewPosition LL)",
        folder(50_000_112): "images in different splits (test, train)",
        folder(50_000_113): "not in mimic-cxr-2.0.0-split.csv",
        f"{folder(50_000_114)}/{50_000_114:08x}-00000001.jpg": "not in mimic-cxr-2.0.0-split.csv",
        "mimic-cxr-2.0.0-split.csv": f"not in mimic-cxr-2.0.0-metadata.csv ({50_000_115:08x}-00000000)",
        f"{folder(50_000_116)}.txt": "no findings or impression",
        f"{folder(50_196_495)}.txt": "report is on the list of those whose sections can't be told apart",
        f"{folder(50_000_118)}.txt": "fewer than 4 sentences (3 found)",
        folder(50_000_119): "images of more than one subject",
    }
    assert {row["study"] for row in rejected(out)} >= {"50000110", "50000115", "50196495"}


def test_min_sentences(tree, out):
    tree.add(50_000_120, sentences=3)
    assert reasons(tree, out, min_sentences=3) == {}
    assert 50_000_120 in PreparedDataset.open(out).study_ids


def test_windows_newlines_and_non_ascii_text(tree, out):
    tree.add(50_000_000 + 121)
    text = "\n FINDINGS:\n \n Café au lait. 5°C. Über. Fine.\n \n IMPRESSION: Well.\n"
    tree.report(50_000_121).write_bytes(text.replace("\n", "\r\n").encode())
    reasons(tree, out)
    dataset = PreparedDataset.open(out)
    index = dataset.study_ids.tolist().index(50_000_121)
    assert dataset.sentences(index) == ["Café au lait.", "5°C.", "Über.", "Fine.", "Well."]


def test_annotations_are_scaled_to_the_resized_image(tree, out, monkeypatch):
    # Rows of images are counted within a chunk first, then over the dataset.
    monkeypatch.setattr(pipeline, "make_tasks", functools.partial(chunks.make_tasks, size=4))
    (path,) = tree.add(50_000_130, split="test", size=(448, 896))
    mask = np.zeros((896, 448), np.uint8)
    mask[400:480, 100:140] = 255
    (tree.root / "masks").mkdir()
    Image.fromarray(mask).save(tree.root / "masks/m.png")
    common = {"dicom_id": path.stem, "side": "left", "severity": "mild"}
    box = {"x": 100, "y": 400, "width": 40, "height": 80}
    tree.annotations = [
        {**common, **box, "finding": "Edema", "mask": "masks/m.png"},
        {**common, **box, "finding": "Pneumonia", "side": ""},
        {**common, **box, "finding": "Lost", "mask": "masks/none.png"},
        {**common, **box, "finding": "Elsewhere", "dicom_id": "unknown"},
    ]
    assert reasons(tree, out) == {"masks/none.png": "mask not readable (there is no such file)"}
    dataset = PreparedDataset.open(out, "test")
    with_mask, without = dataset.annotations()
    row = dataset.image_rows(dataset.study_ids.tolist().index(50_000_130))[0]
    assert (with_mask.image_row, with_mask.finding, with_mask.side) == (row, "Edema", "left")
    assert (without.finding, without.side, without.severity) == ("Pneumonia", "", "mild")
    assert with_mask.box == without.box == (50.0, 100.0, 20.0, 20.0)
    for annotation in (with_mask, without):
        assert annotation.mask.dtype == bool
        assert annotation.mask[100:120, 50:70].all()
        assert annotation.mask.sum() == 400
    assert PreparedDataset.open(out, "train").annotations() == []
    with pytest.raises(RunError, match="mask not readable"):
        prepare_studies(mimic_options(images=tree.root, out=out.with_name("strict"), strict=True))


def test_a_tokenizer_of_ones_own(tree, out, tmp_path):
    train_tokenizer(["heart nodule pleural"] * 2).save_pretrained(tmp_path / "mine")
    prepare_studies(mimic_options(images=tree.root, out=out, tokenizer=str(tmp_path / "mine")))
    dataset = PreparedDataset.open(out)
    assert dataset.tokenizer().get_vocab() == train_tokenizer(["heart nodule pleural"] * 2).get_vocab()
    assert dataset.info["tokenizer"]["source"] == str(tmp_path / "mine")
    with pytest.raises(UsageError, match="none-such"):
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "b", tokenizer=str(tmp_path / "none-such")))


def test_a_sentence_without_a_token_is_dropped(tree, out, tmp_path):
    vocabulary = {token: index for index, token in enumerate(("[UNK]", "[CLS]", "[SEP]", "clear"))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Replace("Nothing.", ""), pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path / "mine")
    tree.add(50_000_140)
    tree.report(50_000_140).write_text("\n FINDINGS: One. Nothing. Two. Three. Four.\n", encoding="utf-8")
    tree.add(50_000_141)
    tree.report(50_000_141).write_text("\n FINDINGS: One. Nothing. Two. Three.\n", encoding="utf-8")
    found = reasons(tree, out, tokenizer=str(tmp_path / "mine"))
    assert found == {f"{folder(50_000_141)}.txt": "fewer than 4 sentences (3 with a token of the tokenizer)"}
    dataset = PreparedDataset.open(out, verify="full")
    assert 50_000_141 not in dataset.study_ids
    index = dataset.study_ids.tolist().index(50_000_140)
    assert dataset.sentences(index) == ["One.", "Two.", "Three.", "Four."]
    assert [len(tokens) for tokens in dataset.sentence_tokens(index)] == [2, 2, 2, 2]
    image = next(tree.root.glob("files/p10/*/s50000140/*.jpg"))
    np.testing.assert_array_equal(dataset.image(dataset.image_rows(index)[0]), read_xray(image)[0])


def test_an_existing_folder_is_kept(tree, out):
    out.mkdir()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is not empty; give a folder that does not exist yet"):
        prepare_studies(mimic_options(images=tree.root, out=out))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    prepare_studies(mimic_options(images=tree.root, out=out))
    before = contents(out)
    assert prepare_studies(mimic_options(images=tree.root, out=out, workers=2))["already_done"]
    with pytest.raises(UsageError, match="other inputs or with other options"):
        prepare_studies(mimic_options(images=tree.root, out=out, min_sentences=5))
    tree.report(50_000_003).write_text("changed", encoding="utf-8")
    with pytest.raises(UsageError, match="other inputs or with other options"):
        prepare_studies(mimic_options(images=tree.root, out=out))
    assert contents(out) == before


def test_strict_is_not_content_with_a_dataset_that_lacks_broken_files(tree, out):
    tree.report(50_000_003).unlink()
    prepare_studies(mimic_options(images=tree.root, out=out))
    with pytest.raises(RunError, match=r"leaves out 1 broken file\(s\)"):
        prepare_studies(mimic_options(images=tree.root, out=out, strict=True))


def test_an_empty_training_split(tmp_path, out):
    tree = MimicTree(tmp_path / "tree")
    tree.add(50_000_000, "test")
    tree.add(50_000_001, "train", sentences=2)
    tree.write()
    with pytest.raises(UsageError, match=r"no study of the training split .*left out: fewer than 4 sentences \(1\)"):
        prepare_studies(mimic_options(images=tree.root, out=out))
    assert not out.exists()


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (
            "metadata",
            "ViewPosition",
            "view_position",
            r"no column 'ViewPosition' \(is it 'view_position'\?\); its columns",
        ),
        ("split", "study_id", "study", "split.csv has no column 'study_id'"),
        ("split", ",train", ",training", "split 'training' of .* is none of train, validate, test"),
        ("split", ",50000000,", ",,", "column 'study_id' is empty in line 2"),
        ("metadata", ",50000000,", ",t50000000,", "study_id 't50000000' is no number, with or without a letter"),
        ("chexpert", "Lung Lesion", "Lung lesions", "has no column 'Lung Lesion'"),
        ("chexpert", "1.0", "2.0", "'Edema' of study 50000000 is 2.0, not 1, 0, -1 or empty"),
    ],
)
def test_tables_that_can_not_be_used(tree, out, table, old, new, message):
    edit(tree.root / f"mimic-cxr-2.0.0-{table}.csv", old, new)
    with pytest.raises(UsageError, match=message):
        prepare_studies(mimic_options(images=tree.root, out=out))
    assert not out.exists()


def test_rows_that_contradict_each_other(tree, out):
    tree.split.append({**tree.split[0], "split": "test"})
    with pytest.raises(UsageError, match="is there twice, as train and as test"):
        prepare_studies(mimic_options(images=tree.write(), out=out))
    tree.split.pop()
    tree.metadata.append({**tree.metadata[0], "ViewPosition": "LL"})
    with pytest.raises(UsageError, match="is there twice, with different values"):
        prepare_studies(mimic_options(images=tree.write(), out=out))
    tree.metadata.pop()
    tree.chexpert.append({**tree.chexpert[0], "Edema": -1.0})
    with pytest.raises(UsageError, match="study 50000000 is there twice, with different labels"):
        prepare_studies(mimic_options(images=tree.write(), out=out))


def test_folders_that_can_not_be_used(tree, out, tmp_path):
    def message(**settings) -> str:
        with pytest.raises(UsageError) as caught:
            prepare_studies(mimic_options(**{"images": tree.root, "out": out, **settings}))
        return str(caught.value)

    assert message(images=tmp_path / "none").endswith("none: there is no such folder")
    (tmp_path / "reports.zip").write_bytes(b"PK")
    assert message(reports=tmp_path / "reports.zip").startswith("--reports ")
    assert "unzip the file" in message(reports=tmp_path / "reports.zip")
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped/mimic-cxr-reports.zip").write_bytes(b"PK")
    assert "unzip mimic-cxr-reports.zip first" in message(reports=tmp_path / "zipped")
    (tmp_path / "empty").mkdir()
    assert "no folder files/" in message(images=tmp_path / "empty")
    assert "is a file" in message(out=tmp_path / "reports.zip")
    assert message(workers=0) == "--workers must be 1 or more, not 0"
    assert message(min_sentences=0) == "--min-sentences must be 1 or more, not 0"
    (tree.root / "mimic-cxr-2.0.0-split.csv").unlink()
    assert "mimic-cxr-2.0.0-split.csv (or .csv.gz) is neither in it nor in its parent folder" in message()
