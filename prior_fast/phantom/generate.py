"""Generating the phantom in MIMIC-CXR-JPG's layout: one study, and the whole dataset in parallel."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from prior_fast.console import progress
from prior_fast.errors import Interrupted, RunError, UsageError
from prior_fast.files import atomic_directory, write_json
from prior_fast.files.claim import KINDS, claim_new, kind_of
from prior_fast.files.space import need_space
from prior_fast.phantom.anatomy import Patient
from prior_fast.phantom.contents import BLOCK_SIZE, FINDINGS, StudyContents, plan_study, stream
from prior_fast.phantom.lateral import render_lateral
from prior_fast.phantom.mimic import (
    SPLITS,
    Place,
    StudyRows,
    box,
    dicom_id,
    place_studies,
    write_jpeg,
    write_mask,
    write_tables,
)
from prior_fast.phantom.phrases import EXAMINATIONS
from prior_fast.phantom.render import render_frontal
from prior_fast.phantom.report import write_report
from prior_fast.processes import parallel_map
from prior_fast.radiology.labels import FIVE_CLASSES

Item = TypeVar("Item")
Rows = TypeVar("Rows")

_CHUNK = 8
_SIZES = (64, 4096)
# The ids of studies and subjects have so many values.
_MOST_STUDIES = 10_000_000
# The suffixes of the images in all layouts.
_IMAGES = (".jpg", ".dcm")
_SECOND_FRONTAL_SHARE = 0.3
_LATERAL_SHARE = 0.15
_BLANK_VIEW_SHARE = 0.015
_VIEW_CODES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}


@dataclass(frozen=True)
class PhantomOptions:
    """What to make.

    Attributes:
        studies: number of studies.
        size: the images' longer side in pixels.
        workers: number of processes.
    """

    out: Path
    studies: int = 1000
    seed: int = 0
    size: int = 512
    workers: int = 1


def generate_dataset(options: PhantomOptions) -> dict[str, Any]:
    """Write a made-up dataset into `options.out`, whole or not at all.

    Study i depends only on the seed, the size and i, not on the number of studies or workers.

    Returns:
        The content of report.json: options, counts, seconds.

    Raises:
        UsageError: an option is out of range, or `out` is a file or a folder that is not empty.
        RunError: a worker process died, the disk is full, or another process writes there.
        Interrupted: Ctrl-C.
    """
    start = time.perf_counter()
    with new_dataset(options) as root:
        (root / "masks").mkdir()
        make = partial(write_study, root=root, seed=options.seed, size=options.size)
        studies = draw(make, place_studies(options.seed, options.studies), root, options)
        write_tables(root, studies)
        report = summarize(options, studies)
        report["seconds"] = round(time.perf_counter() - start, 2)
        write_json(root / "report.json", report)
    return report


@contextmanager
def new_dataset(options: PhantomOptions) -> Iterator[Path]:
    """Hold `options.out`; yield an empty folder that becomes it when the block ends without an error.

    Raises:
        UsageError, RunError, Interrupted: as `generate_dataset`.
    """
    check_options(options)
    try:
        with claim_new(options.out) as out:
            check_options(options)
            with atomic_directory(out) as root:
                yield root
    except KeyboardInterrupt as error:
        raise Interrupted("stopped; nothing was written") from error


def draw(make: Callable[[Item], Rows], studies: Sequence[Item], root: Path, options: PhantomOptions) -> list[Rows]:
    """Apply `make`, which writes the files of a study below `root`, to all studies, with progress.

    Raises:
        RunError: the disk has no space for all images, to judge by the first study; or as `map_studies`.
    """
    drawn: list[Rows] = []
    with progress() as bar:
        task = bar.add_task("drawing", total=len(studies))
        for rows in map_studies(make, studies[:1], 1):
            drawn.append(rows)
            bar.advance(task)
        sizes = [path.stat().st_size for path in root.rglob("*") if path.suffix in _IMAGES]
        # A study has one image or more.
        need_space(options.out, (len(studies) - 1) * sum(sizes) // max(1, len(sizes)), "a dataset of this size")
        for rows in map_studies(make, studies[1:], options.workers):
            drawn.append(rows)
            bar.advance(task)
    return drawn


def contents_of(seed: int, place: Place) -> StudyContents:
    """The contents of the study at `place`. Each split has the same shares of findings."""
    block, position = divmod(place.study_of_split, BLOCK_SIZE)
    block_rng = stream(seed, 2, 1, SPLITS.index(place.split), block)
    return plan_study(stream(seed, 2, 0, place.study), block_rng, position)


def write_study(place: Place, root: Path, seed: int, size: int) -> StudyRows:
    """Draw and describe one study, write its files below `root`, and return its rows of the tables."""
    contents = contents_of(seed, place)
    patient = _patient_of(seed, place.subject)
    rng = stream(seed, 7, place.study)
    views = sample_views(rng)
    key = "PA AND LAT" if "LATERAL" in views else views[0]
    report = write_report(stream(seed, 6, place.study), contents, key)
    (root / place.folder).mkdir(parents=True)
    # Written as bytes: text files would get the platform's line ends.
    (root / f"{place.folder}.txt").write_bytes(report.text.encode())
    ids = {"subject_id": place.subject_id, "study_id": place.study_id}
    rows = StudyRows(sentences=len(report.findings) + len(report.impression))
    rows.chexpert.append({**ids, **report.labels})
    exam = {
        "PerformedProcedureStepDescription": EXAMINATIONS[key],
        "StudyDate": f"{int(rng.integers(2110, 2200))}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        "ProcedureCodeSequence_CodeMeaning": EXAMINATIONS[key],
    }
    for number, view in enumerate(views):
        name = dicom_id(rng)
        if view == "LATERAL":
            pixels = render_lateral(patient, contents, seed, place.study, number, size)
        else:
            drawing = render_frontal(patient, contents, seed, place.study, number, size)
            pixels = drawing.pixels
            rows.annotations += _write_masks(root, name, contents, drawing.masks)
        write_jpeg(root / place.folder / f"{name}.jpg", pixels)
        blank = rng.random() < _BLANK_VIEW_SHARE
        clock = f"{int(rng.integers(24)):02d}{int(rng.integers(60)):02d}{int(rng.integers(60)):02d}"
        facts = {
            "ViewPosition": "" if blank else view,
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "StudyTime": f"{int(clock)}.{int(rng.integers(1000)):03d}",
            "ViewCodeSequence_CodeMeaning": "" if blank else _VIEW_CODES[view],
            "PatientOrientationCodeSequence_CodeMeaning": "Erect"
            if view != "AP"
            else str(rng.choice(["Recumbent", ""])),
        }
        rows.metadata.append({"dicom_id": name, **ids, **exam, **facts})
        rows.split.append({"dicom_id": name, **ids, "split": place.split})
    return rows


@lru_cache(maxsize=4)
def _patient_of(seed: int, subject: int) -> Patient:
    """The patient whose number is `subject`. The studies of a patient follow one another."""
    return Patient.sample(stream(seed, 8, subject))


def summarize(options: PhantomOptions, studies: list[StudyRows]) -> dict[str, Any]:
    """The counts of a dataset: studies, images and sentences, and the values of each finding's label."""
    splits: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    labels = {name: Counter[str]() for name in (*FINDINGS, "Support Devices", "No Finding")}
    alone = {split: dict.fromkeys(FIVE_CLASSES, 0) for split in splits}
    for study in studies:
        split, (row,) = study.split[0]["split"], study.chexpert
        views = [image["ViewPosition"] for image in study.metadata]
        splits[split].update(studies=1, images=len(views), frontal_images=sum(v in ("AP", "PA") for v in views))
        splits[split].update(sentences=study.sentences)
        for name, counter in labels.items():
            value = {1.0: "positive", 0.0: "negative", -1.0: "uncertain"}.get(row.get(name, ""), "not_mentioned")
            counter[value] += 1
        present = [name for name in FIVE_CLASSES if row.get(name) == 1.0]
        if len(present) == 1:
            alone[split][present[0]] += 1
    values = ("positive", "negative", "uncertain", "not_mentioned")
    return {
        "seed": options.seed,
        "size": options.size,
        "workers": options.workers,
        "studies": len(studies),
        "subjects": len({study.split[0]["subject_id"] for study in studies}),
        "images": sum(len(study.metadata) for study in studies),
        "annotations": sum(len(study.annotations) for study in studies),
        "splits": {split: dict(counts) for split, counts in splits.items()},
        "labels": {name: {value: counter[value] for value in values} for name, counter in labels.items()},
        "only_one_of_five": alone,
        "studies_by_sentences": {str(n): c for n, c in sorted(Counter(s.sentences for s in studies).items())},
    }


def check_options(options: PhantomOptions) -> None:
    """Refuse options out of range and an output folder that is not empty.

    Raises:
        UsageError: an option can't be used; the message names it.
    """
    smallest, largest = _SIZES
    if not 1 <= options.studies <= _MOST_STUDIES:
        raise UsageError(f"--studies is {options.studies}: give 1 to {_MOST_STUDIES}")
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}: give 0 or more")
    if not smallest <= options.size <= largest:
        raise UsageError(f"--size is {options.size}: give the longer side in pixels, {smallest} to {largest}")
    if options.workers < 1:
        raise UsageError(f"--workers is {options.workers}: give 1 or more")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file: name a folder that is not there yet")
    if options.out.is_dir() and any(options.out.iterdir()):
        kind = kind_of(options.out)
        holds = f" (it holds {KINDS.get(kind, kind)})" if kind else ""
        raise UsageError(f"--out {options.out} is not empty{holds}: name a folder that is not there yet")


def sample_views(rng: np.random.Generator) -> list[str]:
    """One or two frontal views. Some studies with PA views also have a lateral view."""
    lateral = rng.random() < _LATERAL_SHARE
    view = "PA" if lateral or rng.random() < 0.35 else "AP"
    views = [view] * (2 if rng.random() < _SECOND_FRONTAL_SHARE else 1)
    return [*views, "LATERAL"] if lateral else views


def _write_masks(root: Path, name: str, contents: StudyContents, masks: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for finding in contents.findings:
        path = Path("masks") / f"{name}_{finding.name.replace(' ', '_')}.png"
        write_mask(root / path, masks[finding.name])
        place = dict(zip(("x", "y", "width", "height"), box(masks[finding.name])))
        facts = {"finding": finding.name, "side": finding.side, "severity": finding.severity}
        rows.append({"dicom_id": name, **facts, **place, "mask": path.as_posix()})
    return rows


def map_studies(make: Callable[[Item], Rows], studies: Sequence[Item], workers: int) -> Iterator[Rows]:
    """Apply `make` to each study, in order, in `workers` processes; 1 works in this process.

    Raises:
        RunError: a worker process died.
    """
    try:
        yield from parallel_map(make, studies, workers, _CHUNK)
    except BrokenProcessPool as error:
        raise RunError("a worker process died, perhaps for lack of memory: give a smaller --workers") from error
