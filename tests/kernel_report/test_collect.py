"""From calls to versions of kernels."""

from types import SimpleNamespace

import pytest
import torch

from prior_fast.kernel_report import collect
from prior_fast.kernel_report.specialize import Version, version_of
from prior_fast.kernels.common.launch import Launch, launch, recording


def parameter(name: str, **facts: object) -> SimpleNamespace:
    usual = {"is_constexpr": False, "is_const": False, "annotation_type": "", "default": None}
    fixed = {"do_not_specialize": False, "do_not_specialize_on_alignment": False}
    return SimpleNamespace(name=name, **{**usual, **fixed, **facts})


def made_up_kernel(*parameters: SimpleNamespace) -> SimpleNamespace:
    """The attributes of a kernel that the report uses; a process that interprets has no compilable kernels."""
    return SimpleNamespace(params=parameters, fn=SimpleNamespace(__module__="somewhere", __name__="_a_kernel"))


def version(values: dict[str, object], *parameters: SimpleNamespace) -> Version:
    return version_of(Launch(made_up_kernel(*parameters), (1,), values, {}, 4, 1))


@pytest.mark.parametrize(
    ("value", "kind", "aligned"),
    [
        (1, "constexpr", False),
        (None, "constexpr", False),
        (16, "i32", True),
        (0, "i32", True),
        (17, "i32", False),
        (-(2**31), "i32", True),
        (2**31, "i64", True),
        (2**63, "u64", True),
        (1.0, "fp32", False),
        (True, "u1", False),
        (torch.empty(3, dtype=torch.float16), "*fp16", True),
        (torch.empty(9, dtype=torch.float16)[8:], "*fp16", True),
        (torch.empty(9, dtype=torch.float16)[1:], "*fp16", False),
        (torch.empty(3, dtype=torch.int32, device="meta"), "*i32", True),
    ],
)
def test_a_version_is_made_as_triton_makes_it(value: object, kind: str, aligned: bool) -> None:
    found = version({"x": value}, parameter("x"))
    assert found.types == (("x", kind),)
    assert found.constants == ((("x", value),) if kind == "constexpr" else ())
    assert found.aligned == (("x",) if aligned else ())


def test_what_a_kernel_asks_not_to_be_specialized() -> None:
    assert version({"x": 1}, parameter("x", do_not_specialize=True)).types == (("x", "i32"),)
    assert version({"x": 16}, parameter("x", do_not_specialize=True)).aligned == ()
    assert version({"x": 16}, parameter("x", do_not_specialize_on_alignment=True)).aligned == ()
    assert version({"x": 16}, parameter("x", annotation_type="i64")).types == (("x", "i64"),)
    assert version({}, parameter("x", is_constexpr=True, default=3)).constants == (("x", 3),)
    with pytest.raises(TypeError, match="argument is a list"):
        version({"x": []}, parameter("x"))


def test_recording_yields_the_launches_and_runs_nothing() -> None:
    kernel, x = made_up_kernel(parameter("x_ptr"), parameter("N")), torch.empty(4, device="meta")
    with recording() as outer:
        launch(kernel, (3,), {"x_ptr": x, "N": 4}, {}, num_warps=2, num_stages=3)
        with recording() as inner:
            launch(kernel, (5,), {"x_ptr": x, "N": 5}, {})
        launch(kernel, (0, 3), {"x_ptr": x, "N": 6}, {})
    assert [(each.grid, each.num_warps, each.num_stages) for each in outer] == [((3,), 2, 3)]
    assert [each.arguments["N"] for each in inner] == [5]


def test_calls_become_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that lead to the same version share it; a kernel that no call launches is reported."""
    kernel = made_up_kernel(parameter("x_ptr"), parameter("D", is_constexpr=True))

    def call(rows: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
        launch(kernel, (rows,), {"x_ptr": torch.empty(rows, width, device=device, dtype=dtype)}, {"D": width})

    def cases(device: torch.device, dtype: torch.dtype) -> list[SimpleNamespace]:
        facts = {"direction": "forward", "least_bytes": 8, "operations": 9}
        return [SimpleNamespace(shape=f"{n}", run=lambda n=n: call(n, 4, device, dtype), **facts) for n in (2, 3)]

    def configurations(device: torch.device, dtype: torch.dtype) -> list[object]:
        return [lambda: call(2, 4, device, dtype), lambda: call(2, 5, device, dtype)]

    monkeypatch.setattr(collect, "_bench", lambda op: SimpleNamespace(cases=cases, configurations=configurations))
    found = collect.collect("segment_mean")
    reached = {(dict(each.types)["x_ptr"], dict(each.constants)["D"]): who for each, who in found.versions.items()}
    assert reached.keys() == {("*bf16", 4), ("*bf16", 5), ("*fp16", 4), ("*fp32", 4), ("*fp32", 5)}
    assert [who for _, who in reached["*fp16", 4]] == ["2 forward", "3 forward"]
    assert [who for _, who in reached["*bf16", 4]] == ["2 forward", "3 forward", "configuration 0"]
    assert [who for _, who in reached["*bf16", 5]] == ["configuration 1"]
    assert len(found.cases) == 6 and {case["launches"] for case in found.cases} == {1}
    assert collect.idle([found]) == ["_segment_mean_bwd_kernel", "_segment_mean_fwd_kernel"]
