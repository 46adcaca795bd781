"""The scripts of bench/demo: commands run once, seeds are joined, and each planted defect changes what it names."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from prior_fast.bench.demo import defects, evaluate, seeds, steps
from prior_fast.bench.demo.commands import Command, evaluations, measurements, run_commands, split_settings
from prior_fast.bench.demo.plants import DEFECTS, another_pair, reversed_divergence, transposed_matching
from prior_fast.bench.demo.prompts import PROMPTS, write_prompts
from prior_fast.cli.main import main, parse
from prior_fast.config import apply_overrides, preset
from prior_fast.evaluation.config import evaluation_config
from prior_fast.evaluation.prompts import make_prompts
from prior_fast.measure.demo.tables import defects_table, planted_table, seconds_table, seeds_table, steps_table
from prior_fast.model.attention_alignment import log_mean_weights
from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.ops.match_prototypes import match_prototypes
from prior_fast.radiology.labels import FIVE_CLASSES
from prior_fast.training import stages
from tests.evaluation.fake_store import write_store
from tests.measure.demo.results import results, write
from tests.small_model import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[2]


def series(folder: Path, *words: str) -> list[Command]:
    return [Command(name, (name, *words), folder / name) for name in ("a", "b", "c")]


class Fake:
    """Runs a command by writing its file; fails at the command `fails`."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.ran = fails, ""

    def __call__(self, folder: Path, command: Command) -> int:
        assert not command.makes.exists()
        self.ran += command.name
        command.makes.write_text("made")
        return int(command.name == self.fails)


def test_a_finished_command_does_not_run_again(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"prior-fast b failed with exit code 1: see .*b\.log"):
        run_commands(tmp_path, series(tmp_path), Fake(fails="b"))
    again, later = Fake(), Fake()
    assert list(run_commands(tmp_path, series(tmp_path), again)) == ["a", "b", "c"]
    run_commands(tmp_path, series(tmp_path), later)
    assert (again.ran, later.ran) == ("bc", "")


def test_changed_words_or_a_missing_result_run_again_with_all_that_follows(tmp_path: Path) -> None:
    run_commands(tmp_path, series(tmp_path), Fake())
    (tmp_path / "b").unlink()
    missing, changed = Fake(), Fake()
    run_commands(tmp_path, series(tmp_path), missing)
    run_commands(tmp_path, series(tmp_path, "seed=1"), changed)
    assert (missing.ran, changed.ran) == ("bc", "abc")


def test_settings_may_stand_anywhere() -> None:
    assert split_settings(["seed=1", "--out", "x", "a.b=2,3", "--k=v"]) == (
        ["seed=1", "a.b=2,3"],
        ["--out", "x", "--k=v"],
    )


def test_every_command_of_the_scripts_is_accepted(tmp_path: Path) -> None:
    made = [
        *seeds.commands(tmp_path, 3, 200, ["stage_epochs=1,1,1"], True),
        *defects.commands(tmp_path, tmp_path / "data", ["stage_epochs=1,1,1"]),
    ]
    made += measurements(tmp_path, tmp_path / "data")
    assert len({command.name for command in made}) == 11
    for command in made:
        if command.name == seeds.EVALUATED:
            continue  # these are `measurements`
        args = parse(command.words)
        if command.name == "train":
            apply_overrides(preset("tiny"), args.settings)
    trained = next(command for command in made if command.name == "train")
    assert "seed=3" in trained.words and "stage_epochs=1,1,1" in trained.words
    zero_shot = evaluations(tmp_path, tmp_path / "data", ["pictures=false"])
    assert ["pictures=false" in command.words for command in zero_shot] == [True, True, False, False]


def test_one_process_runs_the_named_commands_until_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, ...]] = []

    def run(words: tuple[str, ...]) -> int:
        assert parse(words)
        ran.append(words)
        return 2 * (words[1] == "generation")

    monkeypatch.setattr(evaluate, "run_command", run)
    assert evaluate.main([str(tmp_path), "bank", "pictures"]) == 0
    assert [words[words.index("--out") + 1] for words in ran] == [str(tmp_path / name) for name in ("bank", "pictures")]
    assert evaluate.main([str(tmp_path), "zero-shot", "generation", "retrieval"]) == 2
    assert [words[1] for words in ran[2:]] == ["zero-shot", "generation"]
    printed = capsys.readouterr().out.splitlines()
    assert printed == [shlex.join(["prior-fast", *words]) for words in ran]
    with pytest.raises(SystemExit) as caught:
        evaluate.main([str(tmp_path), "banc"])
    assert caught.value.code == 2 and "invalid choice: 'banc'" in capsys.readouterr().err


def test_the_prompts_are_written_for_the_command_and_a_place_speaks_for_no_finding(tmp_path: Path) -> None:
    write_prompts(tmp_path / "new")
    (command,) = (each for each in evaluations(tmp_path / "new", tmp_path / "data") if each.makes.name == "zero-shot")
    (setting,) = (word for word in command.words if word.startswith("prompts="))
    assert json.loads(Path(setting.removeprefix("prompts=")).read_text(encoding="utf-8")) == PROMPTS
    prompts = make_prompts(evaluation_config([setting], task="zero-shot"))
    assert len(prompts.texts) == sum(map(len, PROMPTS.values())) and set(PROMPTS) == set(FIVE_CLASSES)
    places = [
        sorted(text.lower().replace(name.lower(), "") for text in PROMPTS[name])
        for name in ("Atelectasis", "Consolidation")
    ]
    assert places[0] == places[1] and len(set(places[0])) == len(places[0])


@pytest.mark.parametrize(("fails", "code"), [("", 0), ("pictures", 1), ("zero-shot", 1)])
def test_the_evaluations_of_a_seed_run_in_two_processes(
    fails: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every evaluation and the pictures are in one of them; a failure of either is one of the command."""
    # One write, since both processes append to one file: print makes several of its words.
    script = "import sys; sys.stdout.write(' '.join(sys.argv[1:]) + chr(10)); sys.exit(sys.argv[1] in sys.argv[2:])"
    started = subprocess.Popen
    monkeypatch.setattr(
        seeds.subprocess,
        "Popen",
        lambda words, **kept: started([sys.executable, "-c", script, fails, *words[3:]], **kept),
    )
    (command,) = (each for each in seeds.commands(tmp_path, 1, 9, [], True) if each.name == seeds.EVALUATED)
    assert seeds.run(tmp_path, command) == code
    said = (tmp_path / "evaluations,-pictures.log").read_text()
    lines = [line.split() for line in said.splitlines()]
    names = [each.makes.name for each in measurements(tmp_path, tmp_path / "data")]
    assert sorted(name for line in lines for name in line if name in names) == sorted(
        [*names, *([fails] * 2 if fails else [])]
    ), said
    assert all(str(tmp_path) in line for line in lines) and len(lines) == 2


def summary(accuracy: float | None, purity: float, problem: str = "") -> dict[str, Any]:
    figure = {"key": "accuracy", "name": "zero-shot accuracy", "value": accuracy, "chance": 0.2}
    other = {"key": "purity", "name": "purity", "value": purity, "chance": 0.4 * purity, "open": ""}
    return {
        "lines": ["one line"],
        "figures": [
            {**figure, "beside": {"with labels": 0.9}, "open": problem},
            {**other, "beside": {"k-means": 0.5 * purity}},
        ],
    }


def test_the_figures_of_seeds_are_joined() -> None:
    accuracy, purity = seeds.join([summary(0.5, 0.6), summary(0.8, 0.8), summary(None, 1.0, "not defined")])
    assert accuracy["values"] == [0.5, 0.8, None] and accuracy["open"] == ["", "", "not defined"]
    assert (accuracy["mean"], accuracy["least"], accuracy["greatest"]) == (pytest.approx(0.65), 0.5, 0.8)
    assert accuracy["spread"] == pytest.approx(0.3 / 2**0.5) and accuracy["beside"] == {"with labels": 0.9}
    assert purity["chance"] == pytest.approx(0.32) and purity["beside"]["k-means"] == pytest.approx(0.4)


def test_the_seeds_go_into_one_file_and_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path, commands: list[Command], run: Any) -> dict[str, float]:
        assert run is seeds.run
        folder.mkdir(parents=True)
        seed = int(folder.name.removeprefix("seed-"))
        problem = "no better than chance" if seed == 4 else ""
        (folder / "summary.json").write_text(json.dumps(summary(0.1 * seed, 0.5, problem)))
        return {"phantom": 2.0 * seed, "train": 100.0 * seed}

    monkeypatch.setattr(seeds, "run_commands", run)
    words = ["--out", str(tmp_path), "stage_epochs=1,1,1", "--seeds", "4", "5", "--studies", "1200"]
    assert seeds.main(words) == 0
    report = json.loads((tmp_path / "demo-seeds.json").read_text())
    assert report["kind"] == "demo-seeds" and report["settings"] == ["stage_epochs=1,1,1"] and report["seeds"] == [4, 5]
    assert report["seconds"] == {"phantom": [8.0, 10.0], "train": [400.0, 500.0]} and report["machine"]["processor"]
    table = seeds_table(report)
    assert table[2] == (
        "| zero-shot accuracy | 0.450 | 0.400 | 0.500 | 0.071 | 0.200 | with labels 0.900 | in 1 of 2 seeds |"
    )
    assert table[3] == "| purity | 0.500 | 0.500 | 0.500 | 0.000 | 0.200 | k-means 0.250 |  |"
    assert table[-1] == "Seeds 4, 5; 1,200 made-up studies each; preset tiny with `stage_epochs=1,1,1`."
    assert seconds_table(report)[0] == "| command | seed 4, s | seed 5, s |"
    assert seconds_table(report)[-1] == "| together | 408 | 510 |"


def test_the_defects_go_into_one_file_and_its_tables(tmp_path: Path) -> None:
    from prior_fast.measure.demo.summary import summarize_demo

    made = results()
    for name, hit_rate in (("none", 0.31), ("mirrored images", 0.01)):
        made["zero-shot"]["pointing_game"]["overall"]["hit_rate"] = hit_rate
        folder = write(defects.folder_of(tmp_path, name), made)
        summarize_demo(folder, None)
    report = defects.collect(tmp_path, ["none", "mirrored images"], ["stage_epochs=1,1,1"])
    header, _, *rows, _, facts = defects_table(report)
    assert header.count("|") == 10
    assert rows == [
        "| none | 0.860 | 0.880 | 0.900 | 0.310 | 3.400 | 0.800 | 0.600 | 0.450 |",
        "| mirrored images | 0.860 | 0.880 | 0.900 | 0.010* | 3.400 | 0.800 | 0.600 | 0.450 |",
        "| chance | 0.500 | 0.200 | 0.200 | 0.060 | 1.000 | 0.500 | 0.220 | 0.150 |",
    ]
    assert facts == "200 test studies; preset tiny with `stage_epochs=1,1,1`."
    assert planted_table(report)[-1].startswith("| mirrored images | half of the training images are mirrored")


def test_the_series_runs_what_make_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same size of the dataset, and the same evaluations in each of the two processes."""
    started: list[Sequence[Command]] = []

    def stop(folder: Path, commands: list[Command], run: Any) -> dict[str, float]:
        started.append(commands)
        raise KeyError

    monkeypatch.setattr(seeds, "run_commands", stop)
    with pytest.raises(KeyError):
        seeds.main(["--out", str(tmp_path)])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    drawn = re.search(r"phantom --out \S+ (--studies \d+ --size \d+) --seed", makefile)
    assert drawn and drawn[1] in " ".join(started[0][0].words)
    assert [tuple(line.split()) for line in re.findall(r"@\$\(EVALUATE\) (.+)", makefile)] == list(seeds.GROUPS)


def test_the_settings_of_the_defects_are_those_of_the_model() -> None:
    config = apply_overrides(preset("tiny"), [word for defect in DEFECTS.values() for word in defect.settings])
    assert config.model.layout == "released" and config.data.flip
    assert not DEFECTS["none"].settings and not DEFECTS["none"].patches


def test_the_matching_is_transposed() -> None:
    # Query 0 is sentence 2, query 1 sentence 0, query 2 sentence 1; query 3 has none.
    sentences = torch.eye(5)[:3]
    queries = torch.stack([sentences[2], sentences[0], sentences[1], torch.zeros(5)])[None]
    offsets = torch.tensor([0, 3], dtype=torch.int32)
    assert match_prototypes(queries, sentences, offsets).tolist() == [[2, 0, 1, -1]]
    assert transposed_matching(match_prototypes)(queries, sentences, offsets).tolist() == [[1, 2, 0, -1]]


def test_every_sentence_keeps_one_query_when_the_matching_is_transposed() -> None:
    generator = torch.Generator().manual_seed(3)
    offsets = torch.tensor([0, 3, 3, 11, 17], dtype=torch.int32)
    queries, sentences = (torch.randn(*shape, generator=generator) for shape in ((4, 8, 6), (17, 6)))
    match = transposed_matching(match_prototypes)(queries, sentences, offsets)
    for row, length in zip(match.tolist(), offsets.diff().tolist()):
        assert sorted(row) == [-1] * (8 - length) + list(range(length))


def test_the_attention_loses_its_scale_wherever_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        attention = LocalCrossAttention(16, bias=-1.0)
        image, text, offsets = torch.randn(2, 4, 16), torch.randn(3, 16), torch.tensor([0, 2, 3], dtype=torch.int32)
        context = attention(image, text, offsets, 2)
        assert torch.equal(attention.for_image(image, text, offsets, 2), context.for_image)
        return *attention.weights(image, text, offsets, 2), log_mean_weights(attention, image, text), context.for_text

    plain = made()
    DEFECTS["attention without scale"].plant(monkeypatch.setattr)
    planted = made()
    for before, after in zip(plain[:2], planted):
        there = before > 0  # padding is 0
        assert torch.allclose(torch.logit(after[there]), 4 * torch.logit(before[there]), rtol=1e-3, atol=1e-4)
    for before, after in zip(plain[2:], planted[2:]):
        assert not torch.allclose(before, after)


def test_images_meet_the_sentences_of_another_pair() -> None:
    def attend(model: Any, batch: Any, patches: Tensor, sentences: Tensor) -> dict[str, Tensor]:
        """Two sentences for each image: patches read the sum of both, sentences the image."""
        read = sentences.view(-1, 2, 1).sum(1, keepdim=True)
        return {"for_image": patches + read, "for_text": patches[:, 0].repeat_interleave(2, 0) + sentences}

    patches, sentences = torch.tensor([1.0, 2.0, 3.0])[:, None, None], torch.arange(6.0)[:, None] * 10
    context = another_pair(attend)(None, None, patches, sentences)
    # Image 0 with the sentences of image 2, and the other way round.
    assert context["for_image"].flatten().tolist() == [1 + 90, 2 + 50, 3 + 10]
    assert context["for_text"].flatten().tolist() == [3, 13, 22, 32, 41, 51]


def test_the_divergence_is_reversed() -> None:
    planted = reversed_divergence(lambda model, batch, sentences, generated: (sentences, generated))
    assert planted(None, None, "sentences", "generated") == ("generated", "sentences")


def losses(store: Path, out: Path) -> dict[str, float]:
    """The terms of the first step of stage 3, after a step of stages 1 and 2."""
    small = [*SMALL_MODEL, "batch_size=8", "max_steps_per_stage=1", "data.workers=0", "processes=1", "device=cpu"]
    small.append("data.verify=sizes")  # the store has no checksums
    small.append("stage_epochs=1,1,1")  # the batches of stage 3 then do not depend on the preset's epochs
    small.append("model.decoder_width=0")  # a decoder wider than its input hardly sees the sentences at first
    assert main(["train", "--preset", "tiny", "--data", str(store), "--out", str(out), "log_every=1", *small]) == 0
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    (last,) = (row for row in rows if row["kind"] == "train" and row["stage"] == 3)
    return last


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "store", train=8)


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("transposed matching", ["prototype_generation"]),
        ("attention without scale", ["local_text", "image_reconstruction"]),
        ("sentences of another pair", ["local_text", "image_reconstruction"]),
        ("reversed divergence", ["prototype_kl"]),
    ],
)
def test_a_planted_defect_changes_what_training_computes(
    name: str, terms: list[str], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = losses(store, tmp_path / "none")
    assert losses(store, tmp_path / "again")["loss"] == before["loss"]
    DEFECTS[name].plant(monkeypatch.setattr)
    planted = losses(store, tmp_path / "planted")
    assert all(planted[term] != pytest.approx(before[term], rel=1e-4) for term in terms)


def test_defects_replace_functions_that_training_calls() -> None:
    # A renamed function would leave the defect without effect.
    owners = {(patch[0], patch[1]) for defect in DEFECTS.values() for patch in defect.patches}
    assert owners == {
        *((stages, name) for name in ("match_prototypes", "attend", "kl_term")),
        (LocalCrossAttention, "__init__"),
    }
    called = stages.prototype_generation.__code__.co_names, stages.stage3.__code__.co_names
    assert "match_prototypes" in called[0] and "kl_term" in called[0] and "attend" in called[1]


def test_only_the_first_seed_has_a_ceiling(tmp_path: Path) -> None:
    """It takes as long as the training. The table of seconds has it below the total, with a dash for other seeds."""
    first, other = (
        [command.words for command in seeds.commands(tmp_path, 1, 200, [], with_ceiling)]
        for with_ceiling in (True, False)
    )
    assert ("bench", "ceiling") in [words[:2] for words in first] and "--ceiling" in first[-1]
    assert ("bench", "ceiling") not in [words[:2] for words in other] and "--ceiling" not in other[-1]
    seconds = {"train": [200.0, 210.0], "bench ceiling": [190.0, None], "bench demo": [1.0, 2.0]}
    assert seconds_table({"seeds": [1, 2], "seconds": seconds})[-2:] == [
        "| together | 201 | 212 |",
        "| `bench ceiling` | 190 | - |",
    ]


def log_of(folder: Path, seconds: dict[int, list[float]]) -> None:
    """A run's log in which steps of each stage take these seconds, window by window."""
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for stage, windows in seconds.items():
        rows += [{"kind": "train", "stage": stage, "pairs_per_second": steps.BATCH / each} for each in windows]
        rows.append({"kind": "validate", "stage": stage})
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_trees_take_turns_and_the_first_window_does_not_count(tmp_path: Path) -> None:
    trees = {"before": tmp_path / "old", "now": tmp_path / "new"}
    ran: list[Path] = []

    def run(tree: Path, data: Path, out: Path, count: int) -> None:
        assert (data, count) == (tmp_path / "data", 24)
        ran.append(tree)
        factor = {trees["before"]: 2.0, trees["now"]: 1.0}[tree] * (1 + len(ran) // 3)
        log_of(out, {1: [9.0, 0.1 * factor, 0.3 * factor, 0.2 * factor], 3: [0.5 * factor]})

    rows = steps.measure(trees, tmp_path / "data", 24, 2, run)
    assert ran == [trees["before"], trees["now"]] * 4
    assert len(rows) == 2 * 2 * 2
    first = next(row for row in rows if (row["beside"], row["stage"], row["tree"]) == ("alone", 1, "before"))
    assert first["seconds"] == pytest.approx([0.4, 0.8])
    table = steps_table({"rows": rows, "batch_size": 64})
    assert table[2] == "| nothing | 1 | 0.60 (0.40 to 0.80) | 0.30 (0.20 to 0.40) | 2.0 |"
    assert table[-1] == "Batches of 64; medians of 2 rounds, and their range."


def test_a_neighbour_ends_with_its_measurement() -> None:
    before = set(children())
    with pytest.raises(KeyError), steps.neighbour(busy=True):
        assert len(set(children()) - before) == 1
        raise KeyError
    assert not set(children()) - before
    with steps.neighbour(busy=False):
        assert not set(children()) - before


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "7"], "--steps is 7: give 8 or more"),
        (["--rounds", "0"], "--rounds is 0: give 1 or more"),
        ([], "has no folder prior_fast"),
    ],
)
def test_steps_refuses_what_it_cannot_measure(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        steps.main(["--data", "x", "--before", str(tmp_path), "--out", str(tmp_path / "f.json"), *words])
    assert message in capsys.readouterr().err


def test_a_training_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="failed with exit code"):
        steps.train(tmp_path, tmp_path / "nowhere", tmp_path / "run", 8)
