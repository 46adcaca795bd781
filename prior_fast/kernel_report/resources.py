"""Resources of a compiled kernel, read from its machine code, and its occupancy of a multiprocessor."""

import re
import struct
from collections import Counter
from dataclasses import dataclass

from prior_fast.hardware.chips import (
    REGISTER_UNIT,
    REGISTERS_PER_THREAD,
    SHARED_RESERVED,
    SHARED_UNIT,
    SUB_PARTITIONS,
    WARP,
    Chip,
)

# Tensor-core instructions: HMMA is executed by one warp, HGMMA by four (sm_90); both take 16-bit floats and TF32.
TENSOR_CORE = ("HMMA", "HGMMA")
# The low 12 bits of their encodings on sm_80 and sm_90; a test compares the counts with those of cuobjdump.
_OPCODES = {0x23C: "HMMA", 0x9F0: "HGMMA", 0xDF0: "HGMMA"}
_INSTRUCTION_BYTES = 16
# Loads from and stores to local memory, to which registers spill.
LOCAL_MEMORY = ("LDL", "STL")

_USAGE = re.compile(r"\bREG:(\d+) STACK:(\d+)\b")
# "        /*0010*/              @!P0 LDL.64 R2, [R1+0x8] ;     /* 0x... */": an address, a predicate, an instruction.
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


@dataclass(frozen=True)
class MachineCode:
    """The resource use of a kernel.

    Attributes:
        registers: registers per thread.
        stack: bytes of a thread's stack, which holds spilled registers.
        spills: instructions that load from or store to local memory.
        tensor_core: number of tensor-core instructions by name, HMMA and HGMMA.
    """

    registers: int
    stack: int
    spills: int
    tensor_core: dict[str, int]


def parse_usage(text: str) -> tuple[int, int]:
    """Registers and bytes of stack per thread, from `cuobjdump --dump-resource-usage` of a cubin of one kernel.

    Raises:
        ValueError: the text does not contain them.
    """
    usage = _USAGE.search(text)
    if usage is None:
        raise ValueError(f"cuobjdump's output is not understood: {text[:200]!r}")
    return int(usage[1]), int(usage[2])


def count_instructions(text: str) -> tuple[int, dict[str, int]]:
    """Spills, and tensor-core instructions by name, in the output of `cuobjdump --dump-sass`.

    Raises:
        ValueError: the text has no instructions.
    """
    names = _INSTRUCTION.findall(text)
    if not names:
        raise ValueError(f"cuobjdump's output is not understood: {text[:200]!r}")
    return sum(name in LOCAL_MEMORY for name in names), {name: names.count(name) for name in TENSOR_CORE}


def count_tensor_core(cubin: bytes) -> dict[str, int]:
    """Tensor-core instructions in a cubin, an ELF file whose sections `.text.<kernel>` hold the instructions.

    cuobjdump gives the same numbers, but takes as long as the compiler.
    """
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    entry_bytes, entries, of_names = struct.unpack_from("<HHH", cubin, 0x3A)
    # name, type, flags, address, offset, size
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + entry_bytes * number) for number in range(entries)]
    names = sections[of_names][4]
    counts: Counter[str] = Counter()
    for name, _, _, _, begin, size in sections:
        if cubin.startswith(b".text.", names + name):
            for at in range(begin, begin + size, _INSTRUCTION_BYTES):
                counts[_OPCODES.get(cubin[at] | (cubin[at + 1] & 0xF) << 8, "")] += 1
    return {name: counts[name] for name in TENSOR_CORE}


@dataclass(frozen=True)
class Occupancy:
    """Blocks and warps of a kernel that are resident on a multiprocessor at once, and the limiting resources.

    limits: any of "registers", "shared memory", "threads", "blocks".
    """

    blocks: int
    warps: int
    limits: tuple[str, ...]


def occupancy(chip: Chip, registers: int, shared: int, warps: int) -> Occupancy:
    """Resident blocks, computed as in `cuda_occupancy.h`, with the largest possible share of L1 as shared memory.

    Args:
        registers: registers per thread.
        shared: bytes of shared memory per block.
        warps: warps per block.
    """
    allowed = {
        "registers": _by_registers(chip, registers, warps),
        "shared memory": _by_shared_memory(chip, shared),
        "threads": chip.warps // warps,
        "blocks": chip.blocks,
    }
    blocks = min(allowed.values())
    return Occupancy(blocks, blocks * warps, tuple(name for name, count in allowed.items() if count == blocks))


def _by_registers(chip: Chip, registers: int, warps: int) -> int:
    of_warp = _round_up(max(registers, 1) * WARP, REGISTER_UNIT)
    # The check of a launch assumes that each sub-partition has as many of the block's warps as the fullest one.
    if registers > REGISTERS_PER_THREAD or of_warp * _round_up(warps, SUB_PARTITIONS) > chip.registers:
        return 0
    return chip.registers // SUB_PARTITIONS // of_warp * SUB_PARTITIONS // warps


def _by_shared_memory(chip: Chip, shared: int) -> int:
    if shared > chip.shared_block:
        return 0
    return chip.shared // _round_up(shared + SHARED_RESERVED, SHARED_UNIT)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
