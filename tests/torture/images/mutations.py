"""Mutations of image files: changed bits, sizes, lengths; parts cut, doubled, zeroed, moved."""

import random
import zlib

_SPECIAL = (0, 1, 0x7F, 0x80, 0xFF)
_NUMBERS = (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF, 65500, 20000, 1 << 24)
# Headers decide about memory, so half of the mutations change the first bytes.
_HEADER = 700
_PNG = b"\x89PNG\r\n\x1a\n"


def mutated(data: bytes, seed: int) -> bytes:
    """A file with one to four changes, always the same for a seed."""
    draw = random.Random(seed)
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if len(changed) < 8:
            break
        _CHANGES[draw.randrange(len(_CHANGES))](changed, draw)
    return _with_right_sums(changed) if changed.startswith(_PNG) and draw.random() < 0.7 else bytes(changed)


def _with_right_sums(data: bytearray) -> bytes:
    """A PNG file with the checksums that its chunks should have: otherwise the reader gets no further than these."""
    place = len(_PNG)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


def _place(data: bytearray, draw: random.Random) -> int:
    return draw.randrange(min(len(data), _HEADER) if draw.random() < 0.5 else len(data))


def _flip(data: bytearray, draw: random.Random) -> None:
    data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _set_byte(data: bytearray, draw: random.Random) -> None:
    data[_place(data, draw)] = draw.choice(_SPECIAL)


def _set_number(data: bytearray, draw: random.Random) -> None:
    size = draw.choice((2, 4, 8))
    place = _place(data, draw)
    number = (draw.choice(_NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, draw.choice(("little", "big")))
    data[place : place + size] = number[: len(data) - place]


def _cut_end(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(1, len(data)) :]


def _cut_middle(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    del data[place : place + draw.randrange(1, 64)]


def _zeros(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    length = min(draw.choice((4, 64, 600)), len(data) - place)
    data[place : place + length] = bytes(length)


def _garbage(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    length = min(draw.choice((4, 64, 600)), len(data) - place)
    data[place : place + length] = draw.randbytes(length)


def _double(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    part = data[place : place + draw.choice((1, 12, 100))]
    data[place:place] = part * draw.choice((1, 3, 50))


def _move(data: bytearray, draw: random.Random) -> None:
    source, target = _place(data, draw), _place(data, draw)
    part = data[source : source + draw.choice((2, 4, 12))]
    data[target : target + len(part)] = part[: len(data) - target]


_CHANGES = (_flip, _set_byte, _set_number, _set_number, _cut_end, _cut_middle, _zeros, _garbage, _double, _move)
