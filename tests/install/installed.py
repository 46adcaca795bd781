"""Checks of an installed prior-fast by itself: wheel.py runs them outside the checkout, after `prior-fast train`."""

import ast
import importlib
import importlib.util
import json
import math
import os
import re
import sys
from importlib import metadata
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

FACTS = json.loads(Path("facts.json").read_text(encoding="utf-8"))
# Optional packages, and packages that only the benchmarks need.
OPTIONAL = {"nvidia", "lap", "torch_linear_assignment", "pytest"}


def check_place() -> None:
    """The package is installed in this environment, and nothing is imported from the checkout."""
    import prior_fast

    assert Path(prior_fast.__file__).is_relative_to(sys.prefix), prior_fast.__file__
    assert not [path for path in sys.path if Path(path or ".").resolve().is_relative_to(FACTS["checkout"])], sys.path


def check_packages() -> None:
    """Installed packages have the versions of the lock, and packages for developers are not installed."""
    installed = {normal(dist.name): dist.version for dist in metadata.distributions()}
    assert not {"pytest", "hypothesis", "ruff", "mypy", "psutil"} & installed.keys(), sorted(installed)
    if FACTS["lock"]:
        locked = re.findall(r"^(\S+)==(\S+)", Path(FACTS["lock"]).read_text(encoding="utf-8"), flags=re.MULTILINE)
        missing = installed.keys() - {normal(name) for name, _ in locked} - {"prior-fast"}
        assert not missing, f"not in the lock: {missing}"
        others = {name for name, version in installed.items() if (name, version) not in locked} - {"prior-fast"}
        assert not others, f"not in the lock's version: {others}"


def normal(name: str) -> str:
    """A project's name in the form that the lock uses."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_imports() -> None:
    """Each module can be imported, and so can the imports inside functions."""
    files = [Path(path) for path in metadata.files("prior-fast") or () if path.suffix == ".py"]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    assert len(modules) > 150, modules
    wanted = set()
    for path in files:
        for node in ast.walk(ast.parse(Path(metadata.distribution("prior-fast").locate_file(path)).read_bytes())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                wanted.add(str(node.module).partition(".")[0])
    missing = {name for name in wanted - OPTIONAL if importlib.util.find_spec(name) is None}
    assert not missing, f"imported, but no dependency: {missing}"
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            assert error.name in OPTIONAL, f"{module}: {error}"


def check_ops() -> None:
    """Each CPU backend (the reference, Triton's interpreter, C++) gives the results of numpy and SciPy."""
    from prior_fast import extension, ops

    rng = np.random.default_rng(1)
    x, cu = rng.standard_normal((9, 20), dtype=np.float32), np.array([0, 4, 4, 9], dtype=np.int32)
    means = np.stack([x[:4].mean(0), np.zeros(20), x[4:].mean(0)])
    for backend in ("reference", "triton"):
        got = ops.segment_mean(torch.from_numpy(x), torch.from_numpy(cu), backend=backend)
        np.testing.assert_allclose(got.numpy(), means, rtol=1e-5, atol=1e-6, err_msg=backend)

    built = ("cpp",) if extension.unavailable("cpu") is None else ()
    cost = rng.standard_normal((3, 7, 9), dtype=np.float32)
    for backend in (*built, "scipy"):
        columns = ops.linear_sum_assignment(torch.from_numpy(cost), backend=backend)
        assert columns.tolist() == [linear_sum_assignment(matrix)[1].tolist() for matrix in cost], backend

    # Half a turn reads the pixels backwards.
    image = rng.integers(0, 256, (1, 12, 12), dtype=np.uint8)
    row, angle, flip = torch.tensor([0]), torch.tensor([180.0]), torch.tensor([False])
    for backend in ("reference", "triton", *built):
        got = ops.rotate_images(torch.from_numpy(image), row, angle, flip, backend=backend)
        np.testing.assert_allclose(got[0, 0].numpy() * 255, image[0, ::-1, ::-1], atol=0.05, err_msg=backend)
    print(f"ops: reference, triton, scipy{', cpp' * bool(built)} agree with numpy and SciPy")


def check_training() -> None:
    """Two steps of each stage with finite losses, weights that moved, and a model that encodes images and reports."""
    import prior_fast

    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [(line["stage"], line["step"]) for line in lines if line["kind"] == "train"]
    assert steps == [(stage, step) for stage in (1, 2, 3) for step in (1, 2)], steps
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float)), lines

    model = prior_fast.PRIOR.from_pretrained("run", device="cpu")
    xrays = sorted(Path("phantom").glob("files/p*/p*/s*/*.jpg"))[:2]
    images = model.encode_images(xrays)
    reports = model.encode_reports(["No pleural effusion. The heart is enlarged."])
    similarity = model.similarity(images, reports)
    assert images.patches.shape == (2, 49, 128) and similarity.shape == (2, 1)
    assert torch.isfinite(similarity).all() and similarity.abs().max() <= 1.00001, similarity
    assert images.whole[0].ne(images.whole[1]).any(), "two X-rays are encoded alike"
    print(f"train: {len(steps)} steps, similarity of two X-rays to a report {similarity.flatten().tolist()}")


for check in (check_place, check_packages, check_imports, check_ops, check_training):
    check()
