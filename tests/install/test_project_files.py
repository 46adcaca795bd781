"""The files at the project's root agree: versions, pinned linters, the workflow, the templates, the README."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read_yaml(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_one_version_is_named_everywhere() -> None:
    version = PROJECT["project"]["version"]
    changes = re.findall(
        r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert changes[0] == version == read_yaml("CITATION.cff")["version"]
    assert sorted(changes, key=lambda each: [int(part) for part in each.split(".")], reverse=True) == changes


def test_the_citation_has_the_paper_and_the_license() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert " and ".join(names) in README and paper["title"] in README


def test_the_hooks_have_the_linters_of_make_lint() -> None:
    pins = dict(each.split("==") for each in PROJECT["project"]["optional-dependencies"]["lint"])
    ruff, local = read_yaml(".pre-commit-config.yaml")["repos"]
    assert ruff["rev"] == f"v{pins['ruff']}" and [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
    assert [hook["id"] for hook in local["hooks"]] == ["mypy"]


def test_the_workflow_runs_what_a_clone_runs() -> None:
    workflow = read_yaml(".github/workflows/ci.yml")
    steps = workflow["jobs"]["ci"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    assert workflow["permissions"] == {"contents": "read"}
    targets = re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets == ["lint", "docs", "test", "test-slow", "test-wheel"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("name", ["fault", "speed", "wish"])
def test_the_templates_of_issues_ask_for_something(name: str) -> None:
    form = read_yaml(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert (fields and any(field.get("validations", {}).get("required") for field in fields)) or name == "wish"
    assert len({field["id"] for field in fields}) == len(fields)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_package_is_typed_for_its_users() -> None:
    assert (ROOT / "prior_fast/py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["prior_fast"]


def test_each_op_is_on_the_page_of_ops() -> None:
    page = (ROOT / "docs/ops/index.md").read_text(encoding="utf-8")
    modules = [path for path in (ROOT / "prior_fast/ops").glob("*.py") if path.stem != "__init__"]
    for path in modules:
        assert path.stem in page, f"{path.stem} is not on docs/ops/index.md"
        (exports,) = [
            ast.literal_eval(node.value)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        assert path.stem in exports
    count = re.search(r"own kernels \| (\d+) ops", README)
    assert count and int(count[1]) == len(modules)
