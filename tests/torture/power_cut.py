"""What a disk may hold after a power cut, from a folder's state before and the operations until the cut.

Two models of a disk:

ordered: changes of names come to the disk in their order, up to some point that is not before the last flush of any
    file or folder (ext4 with data=ordered).
any: each change of a name comes to the disk or not, unless the folder of the name was flushed after it (what POSIX
    promises at least). A name is lost with the folder that it is in.

In both, a file holds what was flushed. Of what was written later, all, nothing, the length alone, a part or some pages
are there: a file that was renamed but not flushed may be empty.
"""

import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.torture.faults.trace import Kind, Operation

Model = Literal["ordered", "any"]
MODELS: tuple[Model, ...] = ("ordered", "any")
PAGE = 4096
# A tree of names: what is at each path below a folder. None: a folder; str: the text of a symbolic link.
State = dict[str, bytes | str | None]


@dataclass(eq=False)
class File:
    """The flushed content, and what was written later: the new length, or data at an offset."""

    safe: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, operations: Iterable[tuple[int, bytes | None]] | None = None) -> bytes:
        content = bytearray(self.safe)
        for offset, data in self.pending if operations is None else operations:
            if data is None:
                del content[offset:]
                content.extend(bytes(offset - len(content)))
            else:
                content.extend(bytes(max(offset - len(content), 0)))
                content[offset : offset + len(data)] = data
        return bytes(content)

    def flush(self) -> None:
        self.safe, self.pending = self.content(), []

    def after_cut(self, rng: random.Random) -> bytes:
        """What the disk may hold."""
        if not self.pending:
            return self.safe
        kind = rng.choice(("all", "nothing", "length", "part", "pages"))
        if kind == "nothing":
            return self.safe
        whole = self.content()
        if kind == "length":
            return (self.safe + bytes(max(len(whole) - len(self.safe), 0)))[: len(whole)]
        if kind == "part":
            number = rng.randrange(len(self.pending))
            offset, data = self.pending[number]
            part = [] if data is None else [(offset, data[: rng.randrange(len(data) + 1)])]
            return self.content([*self.pending[:number], *part])
        if kind == "pages":
            mixed = bytearray(whole)
            for place in range(0, len(whole), PAGE):
                if rng.random() < 0.5:
                    end = min(place + PAGE, len(whole))
                    mixed[place:end] = self.safe[place:end].ljust(end - place, b"\0")
            return bytes(mixed)
        return whole


@dataclass(eq=False)
class Link:
    text: str


@dataclass(eq=False)
class Folder:
    """safe: the names that were there before the operations; now: the names after them."""

    safe: dict[str, "Node"] = field(default_factory=dict)
    now: dict[str, "Node"] = field(default_factory=dict)


Node = File | Folder | Link


@dataclass(eq=False)
class Change:
    """A change of names; a flush of `folder` makes it safe. A node of None removes the name."""

    edits: list[tuple[Folder, str, Node | None]]
    folder: Folder
    safe: bool = False


class Disk:
    """The state of a folder, with all changes that are not safe."""

    def __init__(self, root: str, state: State) -> None:
        self.root, self.top = root, Folder()
        self.changes: list[Change] = []
        self._files: dict[int, File] = {}  # by inode
        self.flushed = 0  # the changes before this number are safe on an ordered disk
        for path in sorted(state):
            content = state[path]
            node: Node = Folder() if content is None else Link(content) if isinstance(content, str) else File(content)
            *above, name = path.split("/")
            folder = self._walk(above)
            assert isinstance(folder, Folder)
            folder.safe[name] = folder.now[name] = node

    def do(self, operations: Iterable[Operation]) -> "Disk":
        """Do operations in the order of their numbers. Returns itself."""
        for one in operations:
            self._do(one)
        return self

    def whole(self) -> State:
        """What programs see now."""
        return _state(self.top, lambda folder: folder.now, lambda file: file.content())

    def after_cut(self, model: Model, rng: random.Random) -> State:
        """What the disk may hold if the power is cut now."""
        if model == "ordered":
            kept = self.changes[: rng.randint(self.flushed, len(self.changes))]
        else:
            share = rng.choice((0.0, 0.5, 0.9, 1.0))
            kept = [change for change in self.changes if change.safe or rng.random() < share]
        names: dict[Folder, dict[str, Node]] = {}
        for change in kept:
            for folder, name, node in change.edits:
                there = names.setdefault(folder, dict(folder.safe))
                if node is None:
                    there.pop(name, None)
                else:
                    there[name] = node
        return _state(self.top, lambda folder: names.get(folder, folder.safe), lambda file: file.after_cut(rng))

    def _do(self, one: Operation) -> None:
        if one.kind is Kind.SYNC:
            self._flush_all(self.top)
            return
        self._follow(one)
        node = self._find(one.path)
        if one.kind in (Kind.CREATE, Kind.MKDIR, Kind.SYMLINK):
            made = {Kind.CREATE: File, Kind.MKDIR: Folder}.get(one.kind, lambda: Link(one.other))()  # type: ignore[operator]
            self._change((one.path, made))
        elif one.kind in (Kind.UNLINK, Kind.RMDIR):
            self._change((one.path, None))
        elif one.kind is Kind.RENAME:
            self._change((one.path, None), (one.other, node))
        elif one.kind is Kind.EXCHANGE:
            self._change((one.path, self._find(one.other)), (one.other, node))
        elif one.kind is Kind.LINK:
            self._change((one.other, node))
        elif one.kind is Kind.FSYNC:
            self._flush(node)
        elif isinstance(node, File):
            self._write(node, one)

    def _follow(self, one: Operation) -> None:
        """Note the file's inode, and rename a file that has another name now: some libraries rename unseen."""
        known, node = self._files.get(one.inode), self._find(one.path)
        if one.kind is Kind.CREATE or one.kind is Kind.MKDIR or not one.inode:
            self._files.pop(one.inode, None)
        elif known is not None and known is not node and (old := self._path_of(known)):
            self._change((old, None), (one.path, known))
        elif isinstance(node, File):
            self._files[one.inode] = node

    def _path_of(self, wanted: File) -> str:
        """The path of a file now; "" if it has none."""
        below: list[tuple[str, Folder]] = [(self.root, self.top)]
        while below:
            above, folder = below.pop()
            for name, node in folder.now.items():
                if node is wanted:
                    return f"{above}/{name}"
                if isinstance(node, Folder):
                    below.append((f"{above}/{name}", node))
        return ""

    def _write(self, node: File, one: Operation) -> None:
        if one.kind is Kind.TRUNCATE or (one.kind is Kind.ALLOCATE and one.offset > len(node.content())):
            node.pending.append((one.offset, None))
        elif one.kind is Kind.WRITE:
            node.pending.append((one.offset, one.data))
        elif one.kind is Kind.CONTENT:
            node.pending += [(len(one.data), None), (0, one.data)]
            if one.durable:
                node.flush()

    def _flush(self, node: "Node | None") -> None:
        self.flushed = len(self.changes)
        if isinstance(node, File):
            node.flush()
        for change in self.changes:
            change.safe = change.safe or change.folder is node

    def _flush_all(self, folder: Folder) -> None:
        self.flushed = len(self.changes)
        for change in self.changes:
            change.safe = True
        for node in folder.now.values():
            if isinstance(node, File):
                node.flush()
            elif isinstance(node, Folder):
                self._flush_all(node)

    def _change(self, *wanted: "tuple[str, Node | None]") -> None:
        edits = []
        for path, node in wanted:
            *above, name = self._parts(path)
            folder = self._walk(above)
            if not isinstance(folder, Folder) or not name:
                continue  # outside, or in a folder that another process has removed
            edits.append((folder, name, node))
            if node is None:
                folder.now.pop(name, None)
            else:
                folder.now[name] = node
        if edits:
            self.changes.append(Change(edits, edits[-1][0]))

    def _parts(self, path: str) -> list[str]:
        return path.removeprefix(self.root).strip("/").split("/") if path.startswith(self.root) else ["", ""]

    def _find(self, path: str) -> "Node | None":
        return self._walk([name for name in self._parts(path) if name])

    def _walk(self, names: Iterable[str]) -> "Node | None":
        node: Node | None = self.top
        for name in names:
            node = node.now.get(name) if isinstance(node, Folder) else None
        return node


def _state(
    folder: Folder, names: Callable[[Folder], dict[str, Node]], content: Callable[[File], bytes], prefix: str = ""
) -> State:
    state: State = {}
    for name, node in sorted(names(folder).items()):
        if isinstance(node, Folder):
            state[prefix + name] = None
            state |= _state(node, names, content, f"{prefix}{name}/")
        else:
            state[prefix + name] = node.text if isinstance(node, Link) else content(node)
    return state


def read_state(root: Path) -> State:
    """What is below a folder."""
    state: State = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            state[name] = str(path.readlink())
        else:
            state[name] = None if path.is_dir() else path.read_bytes()
    return state


def write_state(root: Path, state: State) -> None:
    """Make a folder hold `state` and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, content in state.items():
        path = root / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
