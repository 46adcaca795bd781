"""Parsers of layouts that are filled when they are used: `prior-fast --help` imports no layout."""

import argparse
import ast
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from prior_fast.cli.main import Parser


class LayoutParser(Parser):
    """A parser that gets its options when it first parses words or shows its help.

    Args:
        fill: adds description, options and the function to run; None if the parser is complete.
    """

    def __init__(self, *args: Any, fill: Callable[["LayoutParser"], None] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._fill = fill

    def complete(self) -> None:
        """Add the options, once."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse."""
        self.complete()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """As in argparse."""
        self.complete()
        return super().format_help()


def add_layouts(
    layouts: "argparse._SubParsersAction", package: ModuleType, fill: Callable[[LayoutParser, str, ModuleType], None]
) -> None:
    """Add every module of a package as a layout.

    Args:
        fill: completes the parser of a layout from its name and its module.
    """
    for found in pkgutil.iter_modules(package.__path__):
        path = f"{package.__name__}.{found.name}"

        def complete(parser: LayoutParser, name: str = found.name, path: str = path) -> None:
            fill(parser, name, importlib.import_module(path))

        source = Path(package.__path__[0]) / f"{found.name}.py"
        layouts.add_parser(found.name, help=_help(source), fill=complete)


def _help(source: Path) -> str:
    """The text that a module names HELP, read without importing it: layouts import slow libraries."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HELP":
            return ast.literal_eval(node.value)
    return source.stem
