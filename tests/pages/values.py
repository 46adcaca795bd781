"""Python code whose comments say what a statement gives: they are compared with what it gives."""

import ast
import re
import tokenize
from collections.abc import Iterator
from io import StringIO
from typing import Any

_SIZES = r"\[(?:\w+(?:, )?)+\]"
_SHAPES = re.compile(rf"# ({_SIZES}(?:, {_SIZES})*)")
_NAMED = re.compile(rf"# (\w+ {_SIZES}(?:, \w+ {_SIZES})*)$")
_TENSOR = re.compile(r"# (tensor\(.*?\))(?=$|[:,;])")


def run_checked(code: str, names: dict[str, Any], place: str) -> int:
    """Run the statements of `code`, and compare each with the comment at its end.

    Comments that are compared: `# [5, 768]`, the shape of what a statement assigns or is; `# [n, 1], [224, 224]`, those
    of a tuple; `# patches [2, 49, D], whole [2, D]`, those of attributes; `# tensor([1, 0])`, its text. A letter stands
    for any size, the same one throughout a block.

    Args:
        names: the variables, which the code changes.
        place: page and line, for messages.

    Returns:
        The number of comments that were compared.

    Raises:
        AssertionError: a comment says something else than the statement gives.
    """
    comments = {token.start[0]: token.string for token in _tokens(code) if token.type == tokenize.COMMENT}
    letters: dict[str, int] = {}
    compared = 0
    for statement in ast.parse(code).body:
        value = _run(statement, names, place)
        comment = comments.get(statement.end_lineno or 0, "")
        for what, said, got in _pairs(comment, value):
            fits = _fits(said, got, letters) if isinstance(got, tuple) else said == got
            assert fits, f"{place}: {what} is {got}, not {said}: {ast.unparse(statement)}"
            compared += 1
    return compared


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(StringIO(code).readline)


def _run(statement: ast.stmt, names: dict[str, Any], place: str) -> Any:
    """Run a statement; the value of an expression, or what it assigns to its last target."""
    if isinstance(statement, ast.Expr):
        return eval(compile(ast.Expression(statement.value), place, "eval"), names)
    exec(compile(ast.Module([statement], []), place, "exec"), names)
    if isinstance(statement, ast.Assign):
        target = ast.unparse(statement.targets[-1])
        return eval(target, names)
    return None


def _pairs(comment: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    """What is compared, what the comment says, and what there is: a shape as a tuple, or a text."""
    if match := _SHAPES.match(comment):
        sizes = re.findall(_SIZES, match[1])
        values = value if isinstance(value, tuple) and len(sizes) > 1 else (value,)
        assert len(sizes) <= len(values), f"{comment} of {len(values)} values"
        for said, each in zip(sizes, values):
            yield "the shape", said, tuple(each.shape)
    elif match := _NAMED.match(comment):
        for name, said in re.findall(rf"(\w+) ({_SIZES})", match[1]):
            yield f"the shape of {name}", said, tuple(getattr(value, name).shape)
    elif match := _TENSOR.match(comment):
        yield "the value", match[1], repr(value)


def _fits(said: str, shape: tuple[int, ...], letters: dict[str, int]) -> bool:
    sizes = said.strip("[]").split(", ")
    if len(sizes) != len(shape):
        return False
    return all(
        int(word) == size if word.isdigit() else letters.setdefault(word, size) == size
        for word, size in zip(sizes, shape)
    )
