"""The markers of a JPEG file: its parts, and damage that shows in them (ITU-T T.81, annex B).

libjpeg only warns of most damage in the compressed data and fills in gray or noise. Pillow does not pass the warnings
on.
"""

import re
from dataclasses import dataclass, field

from prior_fast.radiology.image_file import UnreadableImage

_SOI, _EOI, _SOS, _DHT, _DNL, _DRI = 0xD8, 0xD9, 0xDA, 0xC4, 0xDC, 0xDD
JPEG_LS = 0xF7
# Frame headers: all of C0 to CF but DHT, JPG and DAC.
_FRAMES = (*(code for code in range(0xC0, 0xD0) if code not in (_DHT, 0xC8, 0xCC)), JPEG_LS)
_SEQUENTIAL = (0xC0, 0xC1)
_RESTARTS = range(0xD0, 0xD8)
# Tables, comments and the next scan: what may follow a scan that has not all components.
_BETWEEN_SCANS = (_DHT, 0xCC, 0xDB, _DRI, _SOS, _DNL, *range(0xE0, 0xF0), 0xFE)
# In compressed data, FF is followed by 0, or is part of a marker.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
# A file with more has been made to need much memory or time. Real files have some hundred of parts at most.
_MOST_PARTS, _MOST_SCANS = 20_000, 200


@dataclass
class Scan:
    """A scan: the bytes `begin` to `end` of its compressed data, its components' tables, its restart interval.

    Attributes:
        components: (id, DC table, AC table) of each component.
        tables: the Huffman tables in force, by class (0: DC, 1: AC) and number: the counts of codes and the symbols.
    """

    begin: int
    end: int
    components: list[tuple[int, int, int]]
    restart: int
    tables: dict[tuple[int, int], tuple[bytes, bytes]]
    marker: int | None = None
    restarts: list[int] = field(default_factory=list)


@dataclass
class Jpeg:
    """The parts of a JPEG file.

    Attributes:
        kind: the low byte of the frame header's marker; None without a frame header.
        components: (id, horizontal and vertical sampling) of each component of the frame.
        gaps: whether there are bytes between the parts before the first scan, which decoders skip.
    """

    kind: int | None = None
    bits: int = 0
    width: int = 0
    height: int = 0
    components: list[tuple[int, int, int]] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    gaps: bool = False

    @property
    def sequential(self) -> bool:
        """Whether it has one scan of all components, coded by Huffman without progression, of 8 bits."""
        return self.kind in _SEQUENTIAL and self.bits == 8 and len(self.scans) == 1 and self.whole_scan

    @property
    def whole_scan(self) -> bool:
        """Whether the first scan has all components."""
        return bool(self.scans) and len(self.scans[0].components) == len(self.components)

    @property
    def units(self) -> tuple[int, int]:
        """The numbers of MCUs across and down, for a sequential scan."""
        across, down = max(part[1] for part in self.components), max(part[2] for part in self.components)
        if len(self.components) == 1:
            across = down = 1
        return -(-self.width // (8 * across)), -(-self.height // (8 * down))


def read_markers(data: bytes) -> Jpeg:
    """The parts of a JPEG file, up to its end or to where its structure ends.

    Raises:
        UnreadableImage: it has too many parts.
    """
    found, place, interval, parts = Jpeg(), 2, 0, 0
    tables: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    while True:
        expected, place = place, data.find(b"\xff", place)
        if place < 0 or place + 4 > len(data):
            return found
        code = data[place + 1]
        if not found.scans:
            found.gaps |= place != expected or code in (0, 1, _SOI) or code in _RESTARTS
        if code in (0xFF, 0, 1, _SOI) or code in _RESTARTS:
            place += 1 if code == 0xFF else 2
            continue
        if code == _EOI:
            return found
        parts += 1
        if parts > _MOST_PARTS or len(found.scans) > _MOST_SCANS:
            raise UnreadableImage(f"a JPEG file of more than {_MOST_PARTS} parts or {_MOST_SCANS} scans")
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body, place = data[place + 4 : place + 2 + length], place + 2 + length
        if code in _FRAMES and found.kind is None and len(body) >= 6:
            _read_frame(found, code, body)
        elif code == _DHT:
            _read_tables(tables, body)
        elif code == _DRI and len(body) >= 2:
            interval = int.from_bytes(body[:2], "big")
        elif code == _SOS and body:
            scan = _read_scan(data, place, body, interval, dict(tables))
            found.scans.append(scan)
            place = scan.end


def damage_in_markers(jpeg: Jpeg) -> str | None:
    """What is wrong in the order of the markers of a Huffman-coded file; None if nothing is.

    A marker within compressed data is certain damage: no encoder writes one there.
    """
    for scan in jpeg.scans:
        followers = (_EOI, _DNL) if jpeg.kind in _SEQUENTIAL and jpeg.whole_scan else (_EOI, *_BETWEEN_SCANS)
        # Without any marker the file is cut off, which the decoder reports. A file may also lack its end alone.
        if scan.marker not in (None, _SOI, *followers):
            return f"damaged at byte {scan.end}: the marker FF{scan.marker:02X} within a scan"
        if scan.restarts and not scan.restart:
            return f"damaged at byte {scan.begin}: restart markers within a scan that has none"
        if any(code != 0xD0 + number % 8 for number, code in enumerate(scan.restarts)):
            return f"damaged after byte {scan.begin}: the restart markers of a scan are not in their order"
    return None


def _read_frame(found: Jpeg, code: int, body: bytes) -> None:
    found.kind, found.bits = code, body[0]
    found.height, found.width = (int.from_bytes(body[at : at + 2], "big") for at in (1, 3))
    parts = [body[at : at + 3] for at in range(6, min(6 + 3 * body[5], len(body) - 2), 3)]
    found.components = [(part[0], part[1] >> 4, part[1] & 15) for part in parts]


def _read_tables(tables: dict[tuple[int, int], tuple[bytes, bytes]], body: bytes) -> None:
    at = 0
    while at + 17 <= len(body):
        counts = body[at + 1 : at + 17]
        tables[body[at] >> 4, body[at] & 15] = (counts, body[at + 17 : at + 17 + sum(counts)])
        at += 17 + sum(counts)


def _read_scan(
    data: bytes, begin: int, body: bytes, interval: int, tables: dict[tuple[int, int], tuple[bytes, bytes]]
) -> Scan:
    """The scan whose header is `body`; its compressed data end at the first marker other than a restart."""
    pairs = [body[at : at + 2] for at in range(1, min(1 + 2 * body[0], len(body) - 1), 2)]
    scan = Scan(begin, len(data), [(pair[0], pair[1] >> 4, pair[1] & 15) for pair in pairs], interval, tables)
    for marker in _MARKER.finditer(data, begin):
        code = marker[1][0]
        if code not in _RESTARTS:
            scan.end, scan.marker = marker.start(), code
            break
        scan.restarts.append(code)
    return scan
