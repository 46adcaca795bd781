import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from prior_fast import ops

FOLDER = Path(ops.__file__).parent
OPS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def test_every_file_is_an_op():
    assert len(OPS) >= 11
    assert set(ops.__all__) == {*OPS, "Assignment", "PrototypeLookup"}


@pytest.mark.parametrize("name", OPS)
def test_the_function_wins_over_its_module(name):
    module = importlib.import_module(f"prior_fast.ops.{name}")
    function = getattr(ops, name)
    assert inspect.isfunction(function) and function is getattr(module, name)
    assert inspect.signature(function).parameters["backend"].default is None


def test_type_checkers_see_what_runs():
    """The names under TYPE_CHECKING are those that are discovered."""
    tree = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in block.body for alias in node.names) == ops.__all__


def test_misspelt_names_get_the_nearest():
    with pytest.raises(AttributeError, match=r"has no op 'sigmod_attention': did you mean 'sigmoid_attention'\?"):
        _ = ops.sigmod_attention


def test_import_is_light():
    """Importing loads no compiler and no solver, and makes no CUDA context."""
    code = (
        "import sys; import torch; from prior_fast import ops; "
        "print([m for m in ('triton', 'torch._dynamo', 'scipy', 'transformers') if m in sys.modules], "
        "torch.cuda.is_initialized())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER.parents[1], check=True
    )
    assert result.stdout.split("\n")[0] == "[] False"
