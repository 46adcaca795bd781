"""Which module imports which: read from the sources of all modules, with imports inside functions and by name."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "prior_fast"
# Folders outside the package that are part of it through links.
LINKED = ("kernels", "csrc", "bench")


@dataclass(frozen=True)
class Import:
    """An import of a module of the package.

    Attributes:
        name: the imported name; "" for the module itself.
        where: file and line.
    """

    importer: str
    imported: str
    name: str
    where: str


def modules(root: Path) -> dict[str, Path]:
    """The file of every module of a checkout, by its dotted name."""
    found = {}
    for folder in (PACKAGE, *LINKED):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if folder == PACKAGE and len(parts) > 2 and parts[1] in LINKED:
                continue
            parts = parts if folder == PACKAGE else (PACKAGE, *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> list[Import]:
    """Every import of one module of the package by another, `TYPE_CHECKING` blocks included."""
    files = modules(root)
    packages = {name.rsplit(".", 1)[0] for name in files if "." in name} | {f"{PACKAGE}.{name}" for name in LINKED}
    found = []
    for name, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for imported, taken, line in _imported(tree, name, path.name == "__init__.py", set(files) | packages):
            found.append(Import(name, imported, taken, f"{path.relative_to(root)}:{line}"))
    return found


def _imported(tree: ast.Module, name: str, is_package: bool, known: set[str]) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".") if is_package else name.split(".")[:-1]
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if _ours(base):
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    yield (whole, "", node.lineno) if whole in known else (base, alias.name, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            yield from ((module, "", node.lineno) for module in _by_name(node.args[0], known))


def _by_name(argument: ast.expr, known: set[str]) -> list[str]:
    """What `import_module` may import; for a composed name, the package in its constant first part."""
    text = ""
    if isinstance(argument, ast.Constant):
        text = str(argument.value)
    elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        text = str(argument.values[0].value)
    words = [word for word in re.split(r"\.", text) if word]
    while words and ".".join(words) not in known:
        words.pop()
    return [".".join(words)] if words and words[0] == PACKAGE else []


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")
