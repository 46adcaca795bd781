"""A user's own splits: folders with lists of image ids."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prior_fast.data.labelled_dataset import PERCENTAGES
from prior_fast.errors import UsageError
from prior_fast.prepare.labelled.splits import Pool, stratified_percentages
from prior_fast.prepare.labelled.write import SplitLists

# The permitted file names of each list; the first is ours, the second is BenchX's.
_FILES = {
    "train": ("train.txt",),
    "train-1": ("train-1.txt", "train_1.txt"),
    "train-10": ("train-10.txt", "train_10.txt"),
    "validate": ("validate.txt", "val.txt"),
    "test": ("test.txt",),
}
_OPTIONAL = ("train-1", "train-10")
_TAKEN = re.compile(r"all|own|official|mgca|benchx|prior-\d|folds-\d")
_EXTENSIONS = re.compile(r"\.(dcm|png|jpe?g)$", re.IGNORECASE)


@dataclass(frozen=True)
class OwnLists:
    """The dataset's image ids in each part of a user's split; parts in `_OPTIONAL` may be absent."""

    name: str
    folder: Path
    parts: Mapping[str, Sequence[str]]

    def split(self, pool: Pool) -> SplitLists:
        """The split, restricted to the images of the pool."""
        there = set(pool.ids)
        parts = {part: [name for name in ids if name in there] for part, ids in self.parts.items()}
        wanted = set(parts["train"])
        drawn = stratified_percentages(pool.only([name in wanted for name in pool.ids]), 0)
        train = {p: parts.get(f"train-{p}", drawn[p]) for p in PERCENTAGES if p != 100}
        without = [part for part in _OPTIONAL if part not in parts]
        rule = f"the lists in {self.folder}" + (f"; {' and '.join(without)} drawn with seed 0" if without else "")
        return SplitLists(rule, {**train, 100: parts["train"]}, parts["validate"], parts["test"])


def parse_words(words: Iterable[str]) -> dict[str, Path]:
    """The folders of `--split-lists NAME=DIR`, by the splits' names.

    Raises:
        UsageError: a word has another form, a name is invalid, reserved or repeated, or a folder does not exist.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not re.fullmatch(r"\w[\w.-]*", name):
            raise UsageError(f"--split-lists {word}: give NAME=DIR, the name of letters, digits, '.', '-' and '_'")
        if _TAKEN.fullmatch(name):
            raise UsageError(f"--split-lists {word}: {name} is a split that this command draws; choose another name")
        if name in folders:
            raise UsageError(f"--split-lists: the name {name} is given twice")
        if not Path(folder).is_dir():
            raise UsageError(f"--split-lists {word}: there is no folder {folder}")
        folders[name] = Path(folder)
    return folders


def read_lists(name: str, folder: Path, ids: Collection[str]) -> OwnLists:
    """Read a folder's lists: train.txt, validate.txt or val.txt, test.txt; optionally train-1.txt and train-10.txt.

    Args:
        ids: the images that the source's tables name.

    Raises:
        UsageError: a list is missing, names an image that is not in `ids`, or shares an image with another part.
    """
    known = _Names(ids)
    parts: dict[str, list[str]] = {}
    for part, names in _FILES.items():
        path = next((folder / file for file in names if (folder / file).is_file()), None)
        if path is not None:
            parts[part] = known.find_all(path)
        elif part not in _OPTIONAL:
            raise UsageError(f"--split-lists {name}={folder}: there is no {' or '.join(names)} in it")
    counts = Counter(image for part in ("train", "validate", "test") for image in parts[part])
    if twice := [image for image, count in counts.items() if count > 1]:
        raise UsageError(f"--split-lists {name}={folder}: {twice[0]} and {len(twice) - 1} more are in it twice")
    for part in _OPTIONAL:
        if strangers := sorted(set(parts.get(part, ())) - set(parts["train"])):
            raise UsageError(f"--split-lists {name}={folder}: {strangers[0]} is in {part} but not in train")
    return OwnLists(name, folder, parts)


class _Names:
    """Finds an image by its id, or by its id without folders or extension if only one image fits."""

    def __init__(self, ids: Collection[str]) -> None:
        self.ids = frozenset(ids)
        counts = Counter(alias for name in ids for alias in _aliases(name))
        self.by_alias = {alias: name for name in ids for alias in _aliases(name) if counts[alias] == 1}

    def find_all(self, path: Path) -> list[str]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} can't be read: {error}") from error
        entries = [entry for line in lines if (entry := line.strip())]
        found = {entry: self._find(entry) for entry in entries}
        if unknown := [entry for entry, name in found.items() if name is None]:
            raise UsageError(
                f"{path} names {unknown[0]!r} and {len(unknown) - 1} more, which are not in the dataset or fit several "
                "of its images"
            )
        return [name for entry in entries if (name := found[entry]) is not None]

    def _find(self, entry: str) -> str | None:
        words = entry.split("/")
        for start in range(len(words)):
            tail = "/".join(words[start:])
            for name in (tail, _EXTENSIONS.sub("", tail)):
                if name in self.ids:
                    return name
                if name in self.by_alias:
                    return self.by_alias[name]
        return None


def _aliases(name: str) -> set[str]:
    bare = _EXTENSIONS.sub("", name)
    return {bare, bare.rsplit("/", 1)[-1]} - {name}
