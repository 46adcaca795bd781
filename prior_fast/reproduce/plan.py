"""Makes the steps of a table, each once, in an order in which they can run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prior_fast.config import RunConfig, apply_overrides, preset, validate_config
from prior_fast.downstream.config import TASKS, task_config
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import evaluation_config
from prior_fast.pictures.config import pictures_config
from prior_fast.reproduce.downloads import Given
from prior_fast.reproduce.steps import Step
from prior_fast.reproduce.variants import PRIOR, VARIANTS
from prior_fast.spelling import nearest

# The authors averaged five draws of CheXpert 5x200, with these seeds (their issue 10).
DRAWS = (114514, 114515, 114516, 114517, 114518)
DRAWN_TASKS = ("zero-shot", "retrieval")
PREFIXES = ("train", *DRAWN_TASKS, *TASKS, "pictures")


@dataclass
class Planner:
    """Collects the steps that tables ask for.

    Attributes:
        out: the folder of all results.
        given: the user's datasets.
        preset: of pre-training.
        settings: by command, the user's settings for it.
        checkpoint: a trained PRIOR, used in place of a pre-training run.
        list_5x200: a list of images, used in place of the five draws; reports are still drawn five times.
        processes: of each pre-training run.
        steps: the steps by name, in the order in which they run.
        datasets: the datasets that are needed, in the order of their first use.
    """

    out: Path
    given: Mapping[str, Given]
    preset: str = "paper"
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    checkpoint: Path | None = None
    list_5x200: Path | None = None
    processes: int = 1
    steps: dict[str, Step] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)

    def fine_tuned(self, variant: str, task: str, dataset: str, percent: int) -> Step:
        """Classification, segmentation or detection on all of the paper's splits."""
        words = ("evaluate", task, *self._model_and_data(variant, self._dataset(dataset)))
        return self._add(f"{variant}/{task}-{dataset}-{percent}", words, task, (f"percent={percent}",))

    def swept(self, variant: str, dataset: str, percent: int) -> Step:
        """Classification with each number of trained blocks."""
        words = ("evaluate", "classification", *self._model_and_data(variant, self._dataset(dataset)))
        extra = (f"percent={percent}", "sweep=blocks")
        name = f"{variant}/classification-blocks-{dataset}-{percent}"
        return self._add(name, words, "classification", extra, proof="sweep.json")

    def drawn(self, variant: str, task: str) -> tuple[Step, ...]:
        """Zero-shot classification or retrieval on each draw of CheXpert 5x200."""
        steps = []
        # Of a list there is one zero-shot result; retrieval still draws the reports.
        for seed in DRAWS if self.list_5x200 is None or task == "retrieval" else DRAWS[:1]:
            images = self._draw_of_5x200(seed)
            extra: tuple[str, ...] = ()
            if task == "retrieval":
                extra = (f"reports={self._dataset('mimic')}", "reports_split=all", f"seed={seed}")
            words = ("evaluate", task, *self._model_and_data(variant, images))
            name = seed if self.list_5x200 is None else f"list-{seed}"
            steps.append(self._add(f"{variant}/{task}-{name}", words, task, extra))
        return tuple(steps)

    def pictured(self, variant: str) -> Step:
        """The pictures of a model."""
        words = ("pictures", *self._model_and_data(variant, self._dataset("mimic")))
        return self._add(f"{variant}/pictures", words, "pictures", proof="report.json")

    def _model_and_data(self, variant: str, data: str) -> tuple[str, ...]:
        return ("--checkpoint", self._model(variant), "--data", data)

    def _model(self, variant: str) -> str:
        """The checkpoint of a variant."""
        if variant == PRIOR and self.checkpoint is not None:
            return str(self.checkpoint)
        words = ("train", "--preset", self.preset, "--data", self._dataset("mimic"), "--resume", "auto")
        step = self._add(
            f"train/{variant}",
            words,
            "train",
            VARIANTS[variant].settings,
            out=self.out / "runs" / variant,
            processes=self.processes,
        )
        return str(step.out)

    def _dataset(self, name: str) -> str:
        """The folder of a prepared form of a dataset."""
        if name not in self.datasets:
            self.datasets.append(name)
            if name == "mimic":
                self.datasets.append("mimic-reports")
        found = self.given.get(name)
        if found and found.prepared:
            return str(found.path)
        words = ["prepare", name, "--images", self._folder(name)]
        if name == "mimic":
            if "mimic-reports" in self.given:
                words += ["--reports", self._folder("mimic-reports")]
            text = self._train_config(PRIOR).model.text.weights
            if text != "random":
                words += ["--tokenizer", text]
        return str(self._add(f"data/{name}", words, out=self.out / "data" / name, proof="dataset.json").out)

    def _draw_of_5x200(self, seed: int) -> str:
        """The folder of one draw of CheXpert 5x200."""
        if "chexpert" not in self.datasets:
            self.datasets.append("chexpert")
        found = self.given.get("chexpert")
        if found and found.prepared:
            raise UsageError(
                f"--data chexpert={found.path}: the draws of CheXpert 5x200 are prepared from the download; give its "
                "folder"
            )
        which, name = ("--seed", str(seed)), f"chexpert5x200-{seed}"
        if self.list_5x200 is not None:
            which, name = ("--list", str(self.list_5x200)), "chexpert5x200-list"
        words = ("prepare", "chexpert5x200", "--images", self._folder("chexpert"), *which)
        return str(self._add(f"data/{name}", words, out=self.out / "data" / name, proof="dataset.json").out)

    def _folder(self, name: str) -> str:
        """The folder of a download, or a variable of the shell if it is not given."""
        return str(self.given[name].path) if name in self.given else variable(name)

    def _train_config(self, variant: str) -> RunConfig:
        return apply_overrides(preset(self.preset), [*VARIANTS[variant].settings, *self.settings.get("train", ())])

    def _add(
        self,
        name: str,
        words: Sequence[str],
        prefix: str = "",
        extra: Sequence[str] = (),
        out: Path | None = None,
        proof: str = "metrics.json",
        processes: int = 1,
    ) -> Step:
        if name in self.steps:
            return self.steps[name]
        folder = out or self.out / "results" / name
        # The table's own settings come last: of two words for one setting the last counts.
        full = (*words, "--out", str(folder), *self.settings.get(prefix, ()), *extra)
        needs = tuple(each.name for each in self.steps.values() if _names(full, each.out))
        self.steps[name] = Step(name, full, folder, proof, needs, processes)
        return self.steps[name]


def _names(words: Sequence[str], folder: Path) -> bool:
    """Whether a word, or the value of a `key=value` word, is the folder."""
    return any(word.partition("=")[2] == str(folder) or word == str(folder) for word in words)


def variable(name: str) -> str:
    """The variable of the shell that stands for the folder of a download."""
    return f"${name.upper().replace('-', '_')}"


def split_settings(words: Sequence[str], preset_name: str) -> dict[str, list[str]]:
    """`COMMAND.KEY=VALUE` words by command, each checked as the command will check it.

    Raises:
        UsageError: an unknown command or key, or a value that can't be used.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        prefix, dot, setting = word.partition(".")
        if not dot or prefix not in PREFIXES:
            hint = nearest(prefix.partition("=")[0], PREFIXES)
            raise UsageError(f"{word}: begin it with a command and a dot, one of {', '.join(PREFIXES)}{hint}")
        found.setdefault(prefix, []).append(setting)
    for prefix, settings in found.items():
        if prefix == "pictures":
            pictures_config(settings)
        elif prefix in DRAWN_TASKS:
            evaluation_config(settings, task=prefix)
        elif prefix in TASKS:
            task_config(prefix, settings)
    for variant in VARIANTS.values():
        config = apply_overrides(preset(preset_name), [*variant.settings, *found.get("train", ())])
        validate_config(config)
    return found
