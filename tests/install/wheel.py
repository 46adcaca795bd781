"""The wheel in an empty environment, used from a folder outside the checkout:

    python tests/install/wheel.py [LOCK]

Builds the wheel from a copy of its sources and installs it with only its runtime dependencies, in LOCK's versions. Then
runs the commands of a new user: `prior-fast doctor`, `build`, `phantom`, `prepare`, `train`. installed.py checks the
results with the environment's interpreter. The script leaves no files behind and needs no package.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "prior_fast", "bench", "csrc", "kernels")
NO_SOURCES = shutil.ignore_patterns("_C", "__pycache__", "results")
SUFFIXES = (".py", ".h", ".cpp", ".cu", ".typed")
ASSIGNMENTS = ("linear_sum_assignment", "match_prototypes")
TRAINING = ["batch_size=8", "stage_epochs=1,1,1", "max_steps_per_stage=2", "log_every=1", "data.workers=0"]


def main() -> None:
    lock = Path(sys.argv[1]).resolve() if sys.argv[1:] else None
    with tempfile.TemporaryDirectory(prefix="prior-fast-wheel-") as name:
        outside = Path(name).resolve()
        assert CHECKOUT not in outside.parents, f"{outside} lies in the checkout: TMPDIR names another place"
        steps(outside, lock)


def steps(outside: Path, lock: Path | None) -> None:
    """Build, install, use and check; the first error ends the run."""
    constraint, build_constraint = (["--constraint", lock], ["--build-constraint", lock]) if lock else ([], [])
    environment = outside / "environment"
    venv.create(environment, with_pip=True)
    python, prior_fast = environment / "bin" / "python", environment / "bin" / "prior-fast"
    pip = [python, "-m", "pip"]
    run("pip", outside, [*pip, "install", "--quiet", *constraint, "--upgrade", "pip"])

    copy = outside / "copy"
    copy.mkdir()
    for source in SOURCES:
        here = CHECKOUT / source
        if here.is_dir():
            shutil.copytree(here, copy / source, symlinks=True, ignore=NO_SOURCES)
        else:
            shutil.copy2(here, copy)
    expected = sources(copy)
    command = [*pip, "wheel", "--quiet", "--no-deps", *build_constraint, "--wheel-dir", outside, copy]
    run("wheel", outside, command)
    (wheel,) = outside.glob("*.whl")
    check_contents(wheel, expected)
    shutil.rmtree(copy)

    run("install", outside, [*pip, "install", "--quiet", "--no-compile", *constraint, wheel])
    run("pip check", outside, [*pip, "check"])

    work = outside / "work"
    work.mkdir()
    run("doctor", work, [prior_fast, "doctor", "--out", "before"])
    run("build", work, [prior_fast, "build"])
    run("doctor", work, [prior_fast, "doctor", "--out", "after"])
    check_doctor(work)
    run("phantom", work, [prior_fast, "phantom", "--out", "phantom", "--studies", "48", "--seed", "5", "--size", "256"])
    run("prepare", work, [prior_fast, "prepare", "mimic", "--images", "phantom", "--out", "prepared"])
    run("train", work, [prior_fast, "train", "--preset", "tiny", "--data", "prepared", "--out", "run", *TRAINING])

    # Isolated mode: Python does not search the script's folder or PYTHONPATH for modules.
    shutil.copy2(CHECKOUT / "tests" / "install" / "installed.py", work)
    facts = {"checkout": str(CHECKOUT), "lock": str(lock) if lock else None}
    (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    run("checks", work, [python, "-I", "installed.py"], show=True)
    print(f"{wheel.name} works outside the checkout")


def run(name: str, folder: Path, command: list, show: bool = False) -> None:
    """Run a command in `folder`, without the caller's Python in its environment; print how long it took."""
    began = time.monotonic()
    dropped = ("PYTHON", "VIRTUAL_ENV", "PRIOR_FAST_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode or show:
        print(done.stdout, end="")
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        sys.exit(f"{name} failed with exit code {done.returncode}")


def sources(copy: Path) -> set[str]:
    """The files that a wheel of these sources must hold; bench, csrc and kernels are included through links."""
    folders = os.walk(copy / "prior_fast", followlinks=True)
    paths = [Path(folder, name) for folder, _, names in folders for name in names if name.endswith(SUFFIXES)]
    found = {path.relative_to(copy).as_posix() for path in paths}
    for some in (
        "py.typed",
        "kernels/segment_mean.py",
        "csrc/assignment.h",
        "csrc/matching_cuda.cu",
        "bench/common/case.py",
    ):
        assert f"prior_fast/{some}" in found, f"{some} is not among the sources: {len(found)} files"
    return found


def check_contents(wheel: Path, expected: set[str]) -> None:
    """Fail unless the wheel holds these files, the command and the license, and no other file of the package."""
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        entry_points = "".join(file.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    held = {name for name in names if name.startswith("prior_fast/")}
    assert held == expected, f"missing: {sorted(expected - held)}; not wanted: {sorted(held - expected)}"
    assert "prior-fast = prior_fast.cli.main:main" in entry_points, entry_points
    assert any(name.endswith("/licenses/LICENSE") for name in names), "no LICENSE in the wheel"


def check_doctor(work: Path) -> None:
    """Fail unless each op has a backend, and C++ serves assignments where it was built, and only there."""
    compiler = os.environ.get("CXX") or any(map(shutil.which, ("c++", "g++", "clang++")))
    for folder, wanted in (("before", "scipy"), ("after", "cpp" if compiler else "scipy")):
        report = json.loads((work / folder / "report.json").read_text(encoding="utf-8"))
        served = {op["op"]: op["backend"] for op in report["ops"]}
        assert len(served) >= 11 and "none" not in served.values(), served
        if report["machine"]["GPU"] == "none":
            assert all(served[name] == wanted for name in ASSIGNMENTS), (folder, wanted, served)
    if not compiler:
        print("no C++ compiler: nothing was built")


if __name__ == "__main__":
    main()
