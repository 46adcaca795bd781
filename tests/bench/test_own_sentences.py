"""bench/demo/own_sentences.py: which sentences are taken for which findings, the shares of hits, and the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.bench.demo.own_sentences import Stated, draw, main, measure, stated_findings
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.pointing import Target
from prior_fast.radiology.labels import FIVE_CLASSES
from tests.evaluation.fake_store import write_checkpoint, write_store


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves: a prepared dataset and a run, here of a random model."""
    folder = tmp_path_factory.mktemp("demo")
    write_store(folder / "prepared")
    write_checkpoint(folder / "run" / "checkpoints", folder / "prepared", stage=3)
    (folder / "run" / "metrics.json").write_text(json.dumps({"seconds": 7.5, "total_steps": 12}))
    return folder


def test_each_annotated_finding_gets_the_sentence_that_states_it(demo: Path) -> None:
    dataset = PreparedDataset.open(demo / "prepared", split="test")
    stated = stated_findings(dataset)
    assert len(stated) == 3 * 5 + 2  # of the study with two findings both
    words = dict(zip(FIVE_CLASSES, ("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion")))
    for each in stated:
        assert words[each.target.finding] in each.sentence and each.sentence in dataset.sentences(each.study)
        assert each.target.image_row in dataset.image_rows(each.study)


def test_the_shares_are_those_of_the_findings() -> None:
    rng = np.random.default_rng()
    names = ["Edema", "Edema", "Edema", "Consolidation"]
    masks, maps = np.zeros((4, 8, 8), bool), rng.uniform(0.1, 0.2, (4, 8, 8)).astype(np.float32)
    masks[:, 2:4, 2:6] = True
    for index, place in enumerate([(2, 2), (3, 5), (0, 0), (7, 7)]):
        maps[(index, *place)] = 0.9
    stated = [Stated(i, Target(i, name, mask), "") for i, (name, mask) in enumerate(zip(names, masks))]
    result, hits = measure(stated, maps)
    assert hits.tolist() == [True, True, False, False]
    assert result["all"]["count"] == 4 and result["all"]["hit_rate"] == 0.5
    assert result["findings"]["Edema"]["hit_rate"] == pytest.approx(2 / 3)
    assert result["findings"]["Consolidation"]["hit_rate"] == 0 and set(result["findings"]) == set(names)
    assert result["all"]["chance"] == pytest.approx(8 / 64)
    expected = np.median([maps[i][masks[i]].mean() / maps[i][~masks[i]].mean() for i in range(3)])
    assert result["findings"]["Edema"]["contrast"] == pytest.approx(float(expected), rel=1e-5)


def test_the_picture_has_two_images_in_which_both_sentences_hit(demo: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset.open(demo / "prepared", split="test")
    stated = stated_findings(dataset)
    maps = np.stack([each.target.mask.astype(np.float32) for each in stated])
    for name, hits in (("both", np.ones(len(stated), bool)), ("none", np.zeros(len(stated), bool))):
        draw(dataset, stated, maps, hits, tmp_path / f"{name}.png")
    widths = {name: Image.open(tmp_path / f"{name}.png").width for name in ("both", "none")}
    # One study of this dataset has two findings: an X-ray and two overlays. Without hits there is nothing to show.
    assert widths["both"] > 3 * 224 > widths["none"]


def test_the_script_writes_the_file_of_the_page(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "sentences.json"
    assert main([str(demo), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["kind"] == "demo-sentences" and (result["training_seconds"], result["training_steps"]) == (7.5, 12)
    assert result["studies"] == 3 * 5 + 2 and result["all"]["count"] == 17 and "machine" in result
    assert 0 <= result["all"]["hit_rate"] <= 1 and json.loads(capsys.readouterr().out)["studies"] == 17
