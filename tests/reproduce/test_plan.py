"""The steps of the tables: each once, in an order in which they can run, with the paper's datasets and seeds."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from prior_fast.cli.main import main, parse
from prior_fast.config import PRESETS
from prior_fast.errors import UsageError
from prior_fast.reproduce import reproduce
from prior_fast.reproduce.downloads import DOWNLOADS, Given, given_datasets, missing
from prior_fast.reproduce.execute import Outcome
from prior_fast.reproduce.plan import DRAWS, Planner, split_settings
from prior_fast.reproduce.printed import PRINTED
from prior_fast.reproduce.reproduce import script
from prior_fast.reproduce.steps import Step
from prior_fast.reproduce.tables import TABLES, find_tables
from prior_fast.reproduce.variants import VARIANTS

OUT = Path("/results")
PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper"
RAW = {name: Given(Path(f"/downloads/{name}"), prepared=False) for name in DOWNLOADS}


def planned(*names: str, **changes) -> Planner:
    planner = Planner(**{"out": OUT, "given": RAW, **changes})
    for table in find_tables(list(names)):
        for variant in table.variants:
            for column in table.columns:
                column.measure.plan(planner, variant)
            if not table.columns:
                planner.pictured(variant)
    return planner


def words_of(planner: Planner, name: str) -> str:
    return " ".join(planner.steps[name].words)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_command_is_one_that_prior_fast_takes(preset: str) -> None:
    planner = planned("all", preset=preset)
    for step in planner.steps.values():
        assert parse(step.words).out == step.out
    assert len({step.out for step in planner.steps.values()}) == len(planner.steps)


def test_a_step_comes_after_the_steps_that_it_needs() -> None:
    planner = planned("all")
    done: set[str] = set()
    for step in planner.steps.values():
        assert set(step.needs) <= done
        done.add(step.name)
    assert planner.steps["prior/retrieval-114514"].needs == ("data/mimic", "train/prior", "data/chexpert5x200-114514")
    assert planner.steps["train/softmax"].needs == ("data/mimic",)
    assert planner.steps["data/rsna"].needs == ()


def test_table_1_has_the_supplements_datasets_and_shares() -> None:
    planner = planned("1")
    names = [name for name in planner.steps if "classification" in name]
    assert names == [
        f"prior/classification-{data}-{percent}" for data in ("rsna", "siim", "chexpert") for percent in (1, 10, 100)
    ]
    assert words_of(planner, "prior/classification-rsna-10").endswith(
        "--checkpoint /results/runs/prior --data /results/data/rsna --out "
        "/results/results/prior/classification-rsna-10 percent=10"
    )
    assert words_of(planner, "train/prior") == (
        "train --preset paper --data /results/data/mimic --resume auto --out /results/runs/prior"
    )


def test_mimic_gets_the_tokenizer_of_the_text_encoder() -> None:
    assert words_of(planned("2"), "data/mimic") == (
        "prepare mimic --images /downloads/mimic --reports /downloads/mimic-reports --tokenizer "
        "emilyalsentzer/Bio_ClinicalBERT --out /results/data/mimic"
    )
    without = {name: given for name, given in RAW.items() if name != "mimic-reports"}
    assert words_of(planned("2", preset="tiny", given=without), "data/mimic") == (
        "prepare mimic --images /downloads/mimic --out /results/data/mimic"
    )
    own = planned("2", settings={"train": ["model.text.weights=bert"]})
    assert "--tokenizer bert" in words_of(own, "data/mimic")


def test_table_2_has_the_five_draws_of_the_authors() -> None:
    planner = planned("2")
    assert DRAWS == (114514, 114515, 114516, 114517, 114518)
    for seed in DRAWS:
        assert words_of(planner, f"data/chexpert5x200-{seed}").endswith(
            f"--images /downloads/chexpert --seed {seed} --out /results/data/chexpert5x200-{seed}"
        )
        assert f"--data /results/data/chexpert5x200-{seed} " in words_of(planner, f"prior/zero-shot-{seed}")
        assert words_of(planner, f"prior/retrieval-{seed}").endswith(
            f"reports=/results/data/mimic reports_split=all seed={seed}"
        )


def test_a_list_takes_the_place_of_the_draws() -> None:
    planner = planned("2", list_5x200=Path("/list.json"))
    assert [name for name in planner.steps if "5x200" in name] == ["data/chexpert5x200-list"]
    assert "--list /list.json" in words_of(planner, "data/chexpert5x200-list")
    assert [name for name in planner.steps if "zero-shot" in name] == ["prior/zero-shot-list-114514"]
    assert len([name for name in planner.steps if "retrieval" in name]) == len(DRAWS)


@pytest.mark.parametrize(
    ("variant", "setting"),
    [
        ("softmax", "model.attention=softmax"),
        ("without-local-alignment", "model.use_local_alignment=false"),
        ("without-bank", "model.use_bank=false"),
        ("without-reconstruction", "model.use_reconstruction=false"),
    ],
)
def test_an_ablation_is_one_setting_on_top_of_the_users(variant: str, setting: str) -> None:
    opposite = setting.replace("false", "true").replace("softmax", "sigmoid")
    planner = planned("all", settings={"train": ["batch_size=64", opposite]})
    words = planner.steps[f"train/{variant}"].words
    assert words[-1] == setting  # the last word counts: the user can't turn an ablation off
    assert "batch_size=64" in words
    assert sorted(VARIANTS) == sorted({name.split("/")[1] for name in planner.steps if name.startswith("train/")})


def test_a_trained_model_and_prepared_datasets_need_no_steps() -> None:
    prepared = {name: Given(Path(f"/prepared/{name}"), prepared=True) for name in ("mimic", "chexpert", "rsna", "siim")}
    planner = planned("1", "3", checkpoint=Path("/run"), given=prepared)
    assert all(step.words[:1] == ("evaluate",) for step in planner.steps.values())
    assert "--checkpoint /run --data /prepared/siim" in words_of(planner, "prior/segmentation-siim-100")
    assert "mimic" not in planner.datasets
    with pytest.raises(UsageError, match="the draws of CheXpert 5x200 are prepared from the download"):
        planned("2", given=prepared)


def test_several_processes_train_with_torchrun() -> None:
    planner = planned("1", processes=4)
    assert (
        planner.steps["train/prior"]
        .shown()
        .startswith("torchrun --nproc-per-node 4 -m prior_fast.cli.main train --preset paper")
    )
    assert planner.steps["train/prior"].argv()[1:6] == ["-m", "torch.distributed.run", "--nproc-per-node", "4", "-m"]
    assert planner.steps["prior/classification-rsna-1"].shown().startswith("prior-fast evaluate")


def test_the_script_names_what_is_missing(tmp_path: Path) -> None:
    planner = planned("1", given={"siim": RAW["siim"]})
    assert missing(planner.datasets, planner.given) == ["rsna", "mimic", "chexpert"]
    text = script(planner)
    assert ': "${RSNA:?set it to the folder of RSNA Pneumonia Detection, stage 2 (Kaggle)}"' in text
    assert 'prior-fast prepare rsna --images "$RSNA" --out /results/data/rsna' in text
    assert "prior-fast prepare siim --images /downloads/siim" in text


def test_printed_numbers_belong_to_cells() -> None:
    for table, variant, column in PRINTED:
        keys = {each.printed or each.key for each in TABLES[table].columns}
        assert variant in TABLES[table].variants and column in keys


def test_the_supplements_numbers_stand_in_it() -> None:
    if not PAPER.is_dir():
        pytest.skip("the paper is not beside this checkout")
    text = "".join(path.read_text(encoding="utf-8") for path in PAPER.glob("*.txt"))
    rows = {line.split("\t")[0]: re.findall(r"\d+\.\d+", line) for line in text.splitlines() if "\t" in line}
    for variant, name in (("softmax", "Softmax"), ("prior", "Sigmoid")):
        for column, first in (("classification", 0), ("segmentation", 2)):
            printed = PRINTED["supplement-3", variant, column]
            assert printed.text == " ± ".join(rows[name][first : first + 2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rsna"], "--data rsna: give NAME=DIR"),
        (["rsma=."], "there is no dataset 'rsma': did you mean 'rsna'"),
        (["rsna=/absent-folder"], "there is no such folder"),
        (["rsna=."], "there is no stage_2_train_images in it; give the folder of RSNA"),
    ],
)
def test_wrong_datasets_are_refused(words: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        given_datasets(words)


def test_a_dataset_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"format": "prior-fast-labelled", "name": "siim"}')
    assert given_datasets([f"siim={tmp_path}"])["siim"].prepared
    with pytest.raises(UsageError, match=r"its dataset.json is of siim, not of rsna"):
        given_datasets([f"rsna={tmp_path}"])
    with pytest.raises(UsageError, match="siim is given twice"):
        given_datasets([f"siim={tmp_path}", f"siim={tmp_path}"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch_size=4", "begin it with a command and a dot"),
        ("trian.batch_size=4", "did you mean 'train'"),
        ("train.batch_sise=4", "unknown setting 'batch_sise': did you mean 'batch_size'"),
        ("train.batch_size=1", "batch_size=1: must be at least 2"),
        ("zero-shot.rank_within=4", "rank_within is a setting of retrieval"),
        ("detection.epochs=0", "epochs=0: must be at least 1"),
        ("pictures.count=9", "count=9: must be 1 to 8"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_settings([word], "paper")


def test_another_kind_of_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    assert main(["reproduce", "--table", "3", "--out", str(tmp_path), "--plan"]) == 2
    assert "holds a prepared dataset: give another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main(["reproduce", "--table", "3", "--out", str(out)]) == 2
    found = capsys.readouterr()
    assert "siim, mimic, rsna: missing; give --data siim=DIR --data mimic=DIR --data rsna=DIR" in found.err
    assert "RSNA Pneumonia Detection, stage 2 (Kaggle); the folder holds stage_2_train_images" in found.out
    assert not out.exists()
    assert main(["reproduce", "--table", "3", "--out", str(out), "--plan"]) == 0
    assert (out / "plan.sh").read_text().count("\nprior-fast evaluate") == 6
    assert main(["reproduce", "--table", "5", "--out", str(out), "--plan"]) == 2
    assert "--table 5: there is no such table; 1, 2, 3, 4, supplement-3" in capsys.readouterr().err


def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = []
    for name in ("mimic", "chexpert"):
        for group in DOWNLOADS[name].holds:
            (tmp_path / name / group[0]).mkdir(parents=True)
        data += ["--data", f"{name}={tmp_path / name}"]
    asked: list[str] = []

    def stop(steps: Iterable[Step], lock: int) -> Outcome:
        asked.extend(step.name for step in steps)
        return Outcome(stopped=True)

    monkeypatch.setattr(reproduce, "execute", stop)
    out = tmp_path / "out"
    assert main(["reproduce", "--table", "2", "--out", str(out), *data]) == 75
    assert f"the same command goes on in {out}" in " ".join(capsys.readouterr().out.split())
    assert asked[:3] == ["data/chexpert5x200-114514", "data/mimic", "train/prior"]
    assert (out / "plan.sh").is_file() and not (out / "tables").exists()


def test_a_run_is_finished_when_its_metrics_say_so(tmp_path: Path) -> None:
    step = Step("train/prior", ("train",), tmp_path, "metrics.json")
    assert not step.finished()
    for content, finished in (('{"finished": false}', False), ("{", False), ('{"finished": true}', True)):
        (tmp_path / "metrics.json").write_text(content)
        assert step.finished() == finished
