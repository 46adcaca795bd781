"""Timing the steps of a stage as in training."""

import json
import sys
from pathlib import Path

import pytest

from prior_fast.bench.gpu import steps
from prior_fast.measure.page.fill import fill
from prior_fast.measure.predict.kernels import part_of_kernel
from prior_fast.measure.predict.parts import OWN, REST

KERNELS = {
    "_sigmoid_attention_bwd_kernel": OWN,
    "void prior_fast::matching_kernel<4>(Arguments)": OWN,
    "void pytorch_flash::flash_fwd_kernel<64>": "softmax attention",
    "_packed_attention_bwd_tiles_kernel": "softmax attention",
    "_dropout_add_layer_norm_bwd_kernel": "layer norm, dropout, GELU",
    "_column_sums_kernel": "layer norm, dropout, GELU",
    "_segment_softmax_pool_fwd_kernel": OWN,
    "sm90_xmma_fprop_implicit_gemm_bf16_execute_segment_k_off_kernel": "convolutions",
    "_ZN17cutlass__5x_cudnn6KernelINS_4conv6kernel": "convolutions",
    "triton_red_fused__native_batch_norm_legit_functional_relu_160": "batch norm, ReLU, pooling",
    "triton_poi_fused_gelu_gelu_backward_128": "layer norm, dropout, GELU",
    "nvjet_sm90_tst_128x160_64x5_4x1_v_bz_NTT": "matrix products",
    "void at::native::multi_tensor_apply_kernel<FusedOptimizerTensorListMetadata>": "clipping and Adam",
    "_adam_kernel": "clipping and Adam",
    "_clip_factor_kernel": "clipping and Adam",
    "_square_sums_kernel": "clipping and Adam",
    "triton_poi_fused__to_copy_53": REST,
    "Memset (Device)": REST,
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_whose_kernel_it_is(kernel: str) -> None:
    assert part_of_kernel(kernel) == KERNELS[kernel]


def test_parts_add_up_to_all_kernels() -> None:
    events = [(name, 1000.0 * number) for number, name in enumerate(KERNELS, 1)] * 4
    found = steps.by_part(events, steps=2)
    assert sum(row["milliseconds"] for row in found["parts"]) == pytest.approx(2 * sum(range(1, len(KERNELS) + 1)))
    assert sum(row["launches"] for row in found["parts"]) == 2 * len(KERNELS)
    times = [row["milliseconds"] for row in found["parts"]]
    assert times == sorted(times, reverse=True)
    assert found["kernels"][0] == {
        "name": "Memset (Device)",
        "part": REST,
        "milliseconds": 2.0 * len(KERNELS),
        "launches": 2.0,
    }
    own = next(row for row in found["parts"] if row["part"] == OWN)
    numbers = [number for number, part in enumerate(KERNELS.values(), 1) if part == OWN]
    assert own == {"part": OWN, "milliseconds": 2.0 * sum(numbers), "launches": 2.0 * len(numbers)}


def test_stages_share_one_report_and_a_page_has_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    small = ["model.image.width=8", "model.image.pool_heads=2", "model.text.layers=1", "device=cpu", "precision=fp32"]
    for stage, count in (("2", "20"), ("1", "10"), ("2", "10")):
        words = ["--preset", "tiny", "--stage", stage, "--batch", "2", "--steps", count, "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["steps", *words, *small])
        steps.main()
    report = json.loads((tmp_path / "steps.json").read_text())
    assert [own["stage"] for own in report["stages"]] == [1, 2]
    for own in report["stages"]:
        assert len(own["milliseconds"]) == 1 and min(own["milliseconds"]) > 0 and own["tflop_per_step"] > 0
        assert len(own["host_milliseconds"]) == 10 and min(own["tokens"]) > 2 * own["batch"]
    assert "stage 1:" in capsys.readouterr().out
    report["stages"][1] |= steps.by_part([("nvjet", 5000.0), ("_segment_mean_kernel", 1000.0)], 1)
    (tmp_path / "steps.json").write_text(json.dumps(report))
    page = fill(
        "".join(f"<!-- table {kind} steps.json -->\n<!-- end of table -->\n" for kind in ("steps", "parts")),
        tmp_path,
        "page",
    )
    assert "| matrix products | 5.0 | 1 |" in page and "| together | 6.0 | 2 |" in page
    assert sum(line.startswith(("| 1 | 2 |", "| 2 | 2 |")) for line in page.splitlines()) == 2
