"""pyproject.toml and the files of locks/: the locks hold every requirement in a version that pyproject.toml permits."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "locks"
MACHINES = ("x86_64", "aarch64")
PYTHONS = {"lock.txt": ("3.11", "3.12", "3.13"), "oldest.txt": ("3.11", "3.12")}


def environment(python: str, machine: str) -> dict[str, str]:
    """The environment in which markers are evaluated: a Linux machine with CPython."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.1",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def applies(requirement: Requirement, where: Mapping[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(dict(where))


def asked_for(project: Mapping) -> list[Requirement]:
    """All requirements of pyproject.toml, including every extra, without references to the project's own extras."""
    extras = project["project"].get("optional-dependencies", {})
    lines = [*project["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    requirements = map(Requirement, lines)
    return [
        each for each in requirements if canonicalize_name(each.name) != canonicalize_name(project["project"]["name"])
    ]


def lock_faults(lock: str) -> list[str]:
    """Lines of a lock that are not an exact version of a project: addresses, options, ranges."""
    faults = []
    for line in filter(None, (line.partition("#")[0].strip() for line in lock.splitlines())):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            faults.append(f"{line}: no requirement")
            continue
        exact = re.fullmatch(r"==[^*,]+", str(requirement.specifier))
        if requirement.url or not exact:
            faults.append(f"{line}: no exact version")
    return faults + [f"{line}: an address" for line in lock.splitlines() if "://" in line]


def locked_versions(lock: str, where: Mapping[str, str]) -> dict[str, list[Version]]:
    """The versions of each project that a lock holds in an environment; there should be one."""
    versions: dict[str, list[Version]] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lock.splitlines())):
        requirement = Requirement(line)
        if applies(requirement, where):
            (specifier,) = requirement.specifier
            versions.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    return versions


def disagreements(requirements: Sequence[Requirement], lock: str, where: Mapping[str, str]) -> list[str]:
    """Requirements that a lock does not hold in an environment, holds outside their range, or holds twice."""
    locked = locked_versions(lock, where)
    faults = [f"{name}: locked {len(versions)} times" for name, versions in locked.items() if len(versions) > 1]
    for requirement in requirements:
        versions = locked.get(canonicalize_name(requirement.name), [])
        if not applies(requirement, where):
            continue
        if not versions:
            faults.append(f"{requirement}: not locked")
        faults += [
            f"{requirement}: locked {version}" for version in versions if not requirement.specifier.contains(version)
        ]
    return faults


def lower_bound(requirement: Requirement) -> Version:
    """The oldest version that a requirement permits."""
    (lowest,) = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
    return lowest


def unbounded(requirements: Sequence[Requirement]) -> list[str]:
    """Requirements that lack a lower or an upper bound; an exact version is both."""
    faults = []
    for requirement in requirements:
        operators = {each.operator for each in requirement.specifier}
        if operators != {"=="} and not operators >= {">=", "<"}:
            faults.append(str(requirement))
    return faults


@pytest.fixture(scope="module")
def project() -> dict:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(params=PYTHONS)
def lock(request: pytest.FixtureRequest) -> str:
    """A lock's text."""
    return (LOCKS / request.param).read_text(encoding="utf-8")


EVERYWHERE = [(name, python, machine) for name in PYTHONS for python, machine in product(PYTHONS[name], MACHINES)]


@pytest.mark.parametrize(("name", "python", "machine"), EVERYWHERE)
def test_a_lock_holds_all_that_is_asked_for_within_its_range(
    project: dict, name: str, python: str, machine: str
) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    assert disagreements(asked_for(project), text, environment(python, machine)) == []


def test_a_lock_has_exact_versions_and_no_address(lock: str) -> None:
    assert lock_faults(lock) == []
    assert len(locked_versions(lock, environment("3.11", "x86_64"))) > 80


def test_a_lock_keeps_to_what_lock_in_permits(lock: str) -> None:
    """pyproject.toml permits a newer torch than the locks may hold."""
    requirements = [Requirement(line) for line in (LOCKS / "lock.in").read_text().splitlines() if line[:1] not in "#"]
    caps = {each.name: str(each.specifier) for each in requirements}
    assert caps["torch"] == "<=2.14.1" and caps["torchvision"] == "<=0.29.1"
    assert disagreements(requirements, lock, environment("3.11", "x86_64")) == []


def test_the_oldest_versions_are_the_lower_bounds(project: dict) -> None:
    """`make test-oldest` uses the lower bounds of pyproject.toml."""
    locked = locked_versions((LOCKS / "oldest.txt").read_text(encoding="utf-8"), environment("3.12", "x86_64"))
    bounds = {str(each): lower_bound(each) for each in asked_for(project)}
    assert bounds == {str(each): locked[canonicalize_name(each.name)][0] for each in asked_for(project)}


def test_each_requirement_has_a_lower_and_an_upper_bound(project: dict) -> None:
    assert unbounded(asked_for(project)) == []


PLANTED = {
    "project": {
        "name": "Some-Thing",
        "dependencies": ["torch>=2.11,<2.16", "Pillow >= 11, < 14"],
        "optional-dependencies": {
            "all": ["some_thing[dali]"],
            "dali": ["nvidia_dali>=2,<3; platform_machine == 'x86_64'"],
        },
    }
}
GOOD = "# by hand\ntorch==2.14.1\npillow==13.0.0\nnvidia-dali==2.4 ; platform_machine == 'x86_64'\n"


@pytest.mark.parametrize(
    ("lock", "machine", "faults"),
    [
        (GOOD, "x86_64", []),
        (GOOD, "aarch64", []),
        (GOOD.replace("nvidia-dali==2.4 ; platform_machine == 'x86_64'\n", ""), "aarch64", []),
        (GOOD.replace("'x86_64'", "'aarch64'"), "x86_64", ["nvidia_dali: not locked"]),
        (GOOD.replace("pillow==13.0.0\n", ""), "x86_64", ["Pillow: not locked"]),
        (GOOD.replace("2.14.1", "2.16.0"), "x86_64", ["torch: locked 2.16.0"]),
        (GOOD.replace("13.0.0", "10.4.0"), "aarch64", ["Pillow: locked 10.4.0"]),
        (GOOD + "Torch==2.13.0 ; python_version >= '3.12'\n", "x86_64", ["torch: locked 2 times"]),
    ],
)
def test_planted_disagreements_are_found(lock: str, machine: str, faults: list[str]) -> None:
    found = disagreements(asked_for(PLANTED), lock, environment("3.12", machine))
    assert [re.sub(r"[<>; ][^:]*:", ":", fault, count=1) for fault in found] == faults


@pytest.mark.parametrize(
    "line",
    [
        "torch>=2.14",
        "torch==2.14.*",
        "torch",
        "torch @ https://somewhere/torch.whl",
        "--extra-index-url https://somewhere/simple",
        "-e .",
        "# from https://somewhere/simple",
    ],
)
def test_planted_lines_of_a_lock_are_found(line: str) -> None:
    assert lock_faults(GOOD) == []
    assert lock_faults(GOOD + line + "\n")


@pytest.mark.parametrize("line", ["torch", "torch>=2.11", "torch<2.16", "torch!=2.12"])
def test_planted_open_ranges_are_found(line: str) -> None:
    assert unbounded([Requirement("ruff==0.17.6"), Requirement("torch>=2.11,<2.16")]) == []
    assert unbounded([Requirement(line)]) == [line]
