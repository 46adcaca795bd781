"""Parsers of layouts that are filled when they are used: `prior-fast --help` imports no layout."""

import argparse
import ast
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from prior_fast.cli.parser import LateParser


def add_layouts(
    layouts: "argparse._SubParsersAction", package: ModuleType, fill: Callable[[LateParser, str, ModuleType], None]
) -> None:
    """Add every module of a package as a layout.

    Args:
        fill: completes the parser of a layout from its name and its module.
    """
    for found in pkgutil.iter_modules(package.__path__):
        path = f"{package.__name__}.{found.name}"

        def complete(parser: LateParser, name: str = found.name, path: str = path) -> None:
            fill(parser, name, importlib.import_module(path))

        source = Path(package.__path__[0]) / f"{found.name}.py"
        layouts.add_parser(found.name, help=_help(source), fill=complete)


def _help(source: Path) -> str:
    """The text that a module names HELP, read without importing it: layouts import slow libraries."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HELP":
            return ast.literal_eval(node.value)
    return source.stem
