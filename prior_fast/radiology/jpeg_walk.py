"""Following the Huffman codes of a sequential JPEG scan to its end, which tells whether it is whole (ITU-T T.81, F.2).

This takes seconds for a large file. It is for files that look damaged: it decides.
"""

from prior_fast.radiology.jpeg_markers import Jpeg, Scan

# For each 16 bits, the most that a code has: the length of the code that they begin with, and its symbol.
Table = list[tuple[int, int]]
_BITS = 16
# A decoder needs no more than 7 bits of padding, which are ones; encoders may add some bytes.
_SPARE_BYTES = 4
_LAST_COEFFICIENT = 63
_SIXTEEN_ZEROS = 0xF0


def find_damage(data: bytes, jpeg: Jpeg) -> str | None:
    """Why the scan of a sequential file can't be whole, and the row of pixels where this shows; None if it is whole.

    Args:
        jpeg: the markers of `data`, with `sequential`.
    """
    scan = jpeg.scans[0]
    units = _units(jpeg, scan)
    if not units:
        return None
    across, down = jpeg.units
    total, high = across * down, 8 * (1 if len(jpeg.components) == 1 else max(part[2] for part in jpeg.components))
    step = scan.restart or total
    parts = _parts(data, scan)
    for number, first in enumerate(range(0, total, step)):
        row = f"damaged in row {first // across * high}"
        if number >= len(parts):
            return f"{row} of {jpeg.height}: the data end there"
        count = min(step, total - first)
        done, left = _walk(parts[number], units, count)
        row = f"damaged in row {(first + done) // across * high}"
        if done < count:
            return f"{row} of {jpeg.height}: the data {'end there' if left == 0 else 'have no valid code there'}"
        if left > _SPARE_BYTES:
            return f"damaged before row {min(jpeg.height, (first + done) // across * high)}: {left} bytes are left over"
    return None


def _units(jpeg: Jpeg, scan: Scan) -> list[tuple[Table, Table]]:
    """The tables (DC, AC) of each block of an MCU, in their order; an empty list if one is missing."""
    sampling = {part[0]: part[1] * part[2] for part in jpeg.components}
    blocks: list[tuple[Table, Table]] = []
    for name, dc, ac in scan.components:
        if name not in sampling or (0, dc) not in scan.tables or (1, ac) not in scan.tables:
            return []
        pair = (_codes(*scan.tables[0, dc]), _codes(*scan.tables[1, ac]))
        blocks += [pair] * (sampling[name] if len(scan.components) > 1 else 1)
    return blocks


def _codes(counts: bytes, symbols: bytes) -> Table:
    """For each 16 bits, the length of the code that they begin with and its symbol; length 0 if there is none."""
    table: Table = []
    place = 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[place : place + count]:
            table += [(length, symbol)] * (1 << (_BITS - length))
        place += count
    return (table + [(0, 0)] * (1 << _BITS))[: 1 << _BITS]


def _parts(data: bytes, scan: Scan) -> list[bytes]:
    """The compressed data between restart markers, without the zeros that follow FF."""
    whole = data[scan.begin : scan.end]
    for code in range(0xD1, 0xD8) if scan.restarts else ():
        whole = whole.replace(b"\xff" + bytes([code]), b"\xff\xd0")
    return [part.replace(b"\xff\x00", b"\xff") for part in whole.split(b"\xff\xd0")]


def _walk(part: bytes, units: list[tuple[Table, Table]], count: int) -> tuple[int, int]:
    """The MCUs, up to `count`, whose codes are valid, and the bytes that are left after them."""
    size, place, held, bits = len(part), 0, 0, 0
    for done in range(count):
        for dc, ac in units:
            coefficient, table = 0, dc
            while coefficient <= _LAST_COEFFICIENT:
                if bits < 2 * _BITS:
                    # Ones follow the end. No code is all ones, so the end of the data shows as an invalid code.
                    more = part[place : place + 32].ljust(32, b"\xff")
                    held = (held & ((1 << bits) - 1)) << 256 | int.from_bytes(more, "big")
                    place, bits = place + 32, bits + 256
                length, symbol = table[held >> (bits - _BITS) & 0xFFFF]
                if length == 0:
                    return done, max(0, size - place + bits // 8)
                if coefficient == 0:
                    bits -= length + symbol
                    coefficient, table = 1, ac
                    continue
                bits -= length + (symbol & 15)
                if symbol & 15 or symbol == _SIXTEEN_ZEROS:
                    coefficient += (symbol >> 4) + 1
                else:
                    break
            if 8 * (place - size) > bits:
                return done, 0
            if coefficient > _LAST_COEFFICIENT + 1:
                return done, max(1, size - place + bits // 8)
    return count, max(0, size - place + bits // 8)
