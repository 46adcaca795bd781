"""The resources of a multiprocessor of each architecture, and the speeds of its chips.

Per-multiprocessor limits: the table of technical specifications in NVIDIA's CUDA C++ Programming Guide, compute
capabilities 8.0 and 9.0. Allocation units: `cuda_occupancy.h` of the CUDA toolkit.
"""

from dataclasses import dataclass, replace
from typing import Protocol

KB = 1024

# Equal on both architectures.
WARP = 32  # threads
REGISTER_UNIT = 256  # registers are allocated to a warp in units of this many
REGISTERS_PER_THREAD = 255
SUB_PARTITIONS = 4  # of a multiprocessor; each has a quarter of the registers
SHARED_UNIT = 128  # bytes; shared memory is allocated to a block in units of this many
SHARED_RESERVED = 1 * KB  # bytes of each block that the system reserves


@dataclass(frozen=True)
class Chip:
    """One GPU of an architecture.

    Attributes:
        name: the chip whose speeds follow.
        registers: 32-bit registers of a multiprocessor, also the maximum of a block.
        shared: bytes of shared memory of a multiprocessor.
        shared_block: maximum bytes of shared memory of a block.
        threads: maximum of resident threads of a multiprocessor.
        blocks: maximum of resident blocks of a multiprocessor.
        bandwidth: bytes/s between the chip and its memory.
        rates: operations/s by dtype, a multiplication and an addition counted as two.
    """

    name: str
    registers: int
    shared: int
    shared_block: int
    threads: int
    blocks: int
    bandwidth: float
    rates: dict[str, float]

    @property
    def warps(self) -> int:
        """Warps that may be resident on a multiprocessor."""
        return self.threads // WARP


CHIPS = {
    "sm_80": Chip(
        name="A100-80",
        registers=65536,
        shared=164 * KB,
        shared_block=163 * KB,
        threads=2048,
        blocks=32,
        bandwidth=2.04e12,  # data sheet of the A100 80 GB SXM: 2,039 GB/s
        # Data sheet, tensor cores without sparsity; float32 without tensor cores, since the kernels keep its precision.
        rates={"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12},
    ),
    "sm_90": Chip(
        name="H200",
        registers=65536,
        shared=228 * KB,
        shared_block=227 * KB,
        threads=2048,
        blocks=32,
        bandwidth=4.8e12,  # data sheet of the H200 SXM
        # 790: the fastest matrix product measured on an H200. The data sheet says 989, at clocks that the power limit
        # does not sustain. float32: data sheet, without tensor cores.
        rates={"bfloat16": 790e12, "float16": 790e12, "float32": 67e12},
    ),
}


# The chips that limits are computed for. The two that are not in CHIPS differ from its entries in the given fields.
BOARDS = (
    replace(CHIPS["sm_80"], name="A100-40", bandwidth=1.555e12),  # data sheet of the A100 40 GB SXM: 1,555 GB/s
    CHIPS["sm_80"],
    # Data sheet of the H100 SXM: 3.35 TB/s. It is the same chip as the H200, with the same rates.
    replace(CHIPS["sm_90"], name="H100", bandwidth=3.35e12),
    CHIPS["sm_90"],
)


class Speeds(Protocol):
    """The speeds that a limit is computed from: those of a `Chip`, or those measured on a machine."""

    @property
    def bandwidth(self) -> float: ...
    @property
    def rates(self) -> dict[str, float]: ...


def least_time(chip: Speeds, dtype: str, moved: int, operations: int) -> tuple[float, str]:
    """The least time of a call in seconds, and which of "memory" and "arithmetic" sets it.

    moved: bytes between the chip and its memory; operations: arithmetic operations, at the rate of `dtype`.
    """
    memory, arithmetic = moved / chip.bandwidth, operations / chip.rates[dtype]
    return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")
