"""Reading machine code, and how many blocks fit on a multiprocessor."""

import pytest

from prior_fast.hardware.chips import CHIPS, KB, least_time
from prior_fast.kernel_report.resources import count_instructions, occupancy, parse_usage

USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function _fitting_kernel:
  REG:47 STACK:24 SHARED:1024 LOCAL:0 CONSTANT[0]:400 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
\tcode for sm_80
\t\tFunction : _HMMA_LDL_kernel
\t.headerflags\t@"EF_CUDA_SM80 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM80)"
        /*0000*/                   MOV R1, c[0x0][0x28] ;                       /* 0x00000a0000017a02 */
                                                                                /* 0x000fe40000000f00 */
        /*0010*/                   HMMA.16816.F32.BF16 R4, R8, R2, RZ ;         /* 0x000000020804723c */
        /*0020*/              @!P0 HMMA.16816.F32.BF16 R4, R8, R2, R4 ;         /* 0x000000020804723c */
        /*0030*/                   HFMA2.MMA R19, -RZ, RZ, 0, 0 ;               /* 0x00000000ff137435 */
        /*0040*/             @!UP1 STL.64 [R1+0x8], R2 ;                        /* 0x0000080201007387 */
        /*0050*/               @P3 LDL.LU.64 R2, [R1+0x8] ;                     /* 0x0000080001027983 */
        /*0060*/                   LDGSTS.E.128 [R3], [R6.64] ;                 /* 0x0000000006037fae */
       /*10a70*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4] ;    /* 0x00e00000041879f0 */
"""


def test_registers_and_stack() -> None:
    assert parse_usage(USAGE) == (47, 24)
    with pytest.raises(ValueError, match="not understood: 'nothing'"):
        parse_usage("nothing")


def test_spills_and_tensor_cores() -> None:
    """A predicate precedes the instruction and types follow it; names with the same prefix are other instructions."""
    assert count_instructions(SASS) == (2, {"HMMA": 2, "HGMMA": 1})
    with pytest.raises(ValueError, match="not understood"):
        count_instructions(USAGE)


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "warps", "blocks", "limits"),
    [
        # 32 x 32 = 1,024 registers per warp; the 16,384 of a sub-partition hold 16 warps, the 4 sub-partitions 64
        ("sm_80", 32, 0, 4, 16, ("registers", "threads")),
        # 47 x 32 = 1,504, rounded up to 1,536; 16,384 hold 10 warps, the 4 sub-partitions 40
        ("sm_80", 47, 0, 4, 10, ("registers",)),
        # 33 x 32 = 1,056, rounded up to 1,280; 12 warps in each, 48 in all; 9 blocks of 5 warps
        ("sm_90", 33, 0, 5, 9, ("registers",)),
        ("sm_80", 16, 0, 1, 32, ("blocks",)),
        ("sm_80", 16, 0, 32, 2, ("threads",)),
        # 8,160, rounded up to 8,192: 2 warps in each, 8 in all
        ("sm_90", 255, 0, 8, 1, ("registers",)),
        ("sm_90", 255, 0, 16, 0, ("registers",)),
        # 49 KB of 164 and of 228 KB, including 1 KB for the system
        ("sm_80", 32, 48 * KB, 4, 3, ("shared memory",)),
        ("sm_90", 32, 48 * KB, 4, 4, ("shared memory",)),
        # 164 / 41 = 4; one more byte rounds up to 41.125
        ("sm_80", 32, 40 * KB, 4, 4, ("shared memory",)),
        ("sm_80", 32, 40 * KB + 1, 4, 3, ("shared memory",)),
        ("sm_80", 32, 163 * KB, 4, 1, ("shared memory",)),
        ("sm_80", 32, 163 * KB + 1, 4, 0, ("shared memory",)),
        ("sm_90", 32, 227 * KB, 4, 1, ("shared memory",)),
        ("sm_90", 32, 227 * KB + 1, 4, 0, ("shared memory",)),
    ],
)
def test_occupancy(arch: str, registers: int, shared: int, warps: int, blocks: int, limits: tuple[str, ...]) -> None:
    found = occupancy(CHIPS[arch], registers, shared, warps)
    assert (found.blocks, found.warps, found.limits) == (blocks, blocks * warps, limits)


def test_least_time() -> None:
    a100 = CHIPS["sm_80"]
    assert least_time(a100, "bfloat16", 2_040_000, 0) == (pytest.approx(1e-6), "memory")
    assert least_time(a100, "bfloat16", 1, 312_000_000) == (pytest.approx(1e-6), "arithmetic")
    assert least_time(a100, "float32", 1, 19_500_000) == (pytest.approx(1e-6), "arithmetic")
