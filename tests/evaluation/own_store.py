"""Copies of the small prepared dataset with other labels, or none, and names; and a labelled dataset of any classes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prior_fast.files import sha256
from prior_fast.radiology.labels import CHEXPERT_LABELS

Labels = Mapping[str, Sequence[float | None]]


def own_labels(store: Path) -> dict[str, list[float | None]]:
    """Labels of other names: of the 17 test studies 3 have a nodule, 4 TB, 4 a TB scar, none a mass.

    The two with a shadow have TB or a TB scar too.
    """
    table = pq.read_table(store / "manifest.parquet")
    shown = {name: [value == 1 for value in table[name].to_pylist()] for name in CHEXPERT_LABELS}
    both = [edema and heart for edema, heart in zip(shown["Edema"], shown["Cardiomegaly"])]
    first = shown["Edema"].index(True, 8)
    return {
        "Nodule": [float(value) for value in shown["Consolidation"]],
        "Tuberculosis": [1.0 if value else None for value in shown["Edema"]],
        "TB scar": [1.0 if heart else -1.0 for heart in shown["Cardiomegaly"]],
        "Shadow": [float(value or index == first) for index, value in enumerate(both)],
        "Mass": [0.0] * table.num_rows,
    }


def rewrite(store: Path, out: Path, labels: Labels | None = None, names: bool = True, annotated: bool = False) -> Path:
    """Copy a prepared dataset with the given labels only; names: with names of studies, subjects and files."""
    shutil.copytree(store, out)
    table = pq.read_table(out / "manifest.parquet").drop_columns(list(CHEXPERT_LABELS))
    for name, values in (labels or {}).items():
        table = table.append_column(name, pa.array(values, pa.float32()))
    if names:
        rows = range(table.num_rows)
        table = table.append_column("study", pa.array([name_of(row) for row in rows]))
        table = table.append_column("subject", pa.array([f"patient {row // 2}" for row in rows]))
        paths = [[f"png/{image}.png" for image in images] for images in table["dicom_ids"].to_pylist()]
        table = table.append_column("image_paths", pa.array(paths))
    pq.write_table(table, out / "manifest.parquet")
    if not annotated:
        (out / "annotations.parquet").unlink(missing_ok=True)
    write_info(out, {"labels": list(labels or {})})
    return out


def name_of(row: int) -> str:
    """The name of the study in a row of the whole dataset."""
    return f"CXR{row}_IM-0001"


def write_info(folder: Path, changes: Mapping[str, object]) -> None:
    """Change dataset.json, and list the files as they are now."""
    path = folder / "dataset.json"
    info = json.loads(path.read_text()) if path.exists() else {}
    info.pop("seal", None)
    files = [file for file in folder.rglob("*") if file.is_file() and file != path]
    sizes = {str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
    path.write_text(json.dumps({**info, **changes, "files": sizes}))


def write_labelled(root: Path, classes: Sequence[str], labels: np.ndarray, seed: int = 0) -> Path:
    """A labelled dataset: float labels [N, C], whose test part has all images."""
    count, rng = len(labels), np.random.default_rng(seed)
    (root / "splits" / "prior-0").mkdir(parents=True)
    np.save(root / "images.npy", rng.integers(0, 256, (count, 224, 224)).astype(np.uint8))
    ids = [f"image {row}.png" for row in range(count)]
    for part in ("train", "validate", "test"):
        (root / "splits" / "prior-0" / f"{part}.txt").write_text("".join(f"{name}\n" for name in ids))
    rows = {"image_id": ids, "patient_id": ids, "labels": pa.array(labels.tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(rows), root / "manifest.parquet")
    facts = {"name": "own", "images": count, "image_mean": 0.5, "image_std": 0.25, "splits": {"prior-0": {}}}
    kind = {"format": "prior-fast-labelled", "version": 1, "has_boxes": False, "has_masks": False}
    write_info(root, {**kind, **facts, "classes": list(classes)})
    return root
