"""Training's cuDNN settings apply while it runs and are restored afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prior_fast.cli.main import main
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.step import StageTrainer


def found() -> tuple[bool, bool]:
    return torch.backends.cudnn.benchmark, torch.backends.cuda.cudnn_sdp_enabled()


@pytest.fixture(params=[(False, True), (True, False)], ids=str)
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    kept = found()
    torch.backends.cudnn.benchmark, attention = request.param
    torch.backends.cuda.enable_cudnn_sdp(attention)
    yield request.param
    torch.backends.cudnn.benchmark = kept[0]
    torch.backends.cuda.enable_cudnn_sdp(kept[1])


@pytest.mark.parametrize("timed", [True, False])
def test_is_set_inside_and_put_back(before: tuple[bool, bool], timed: bool) -> None:
    with pytest.raises(KeyError), cudnn_for_training(timed):
        assert found() == (timed, False)
        raise KeyError
    assert found() == before


@pytest.mark.parametrize(("words", "timed"), [([], True), (["cudnn_benchmark=false"], False)])
def test_a_run_trains_with_it(
    words: list[str],
    timed: bool,
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, seen = StageTrainer.step, []

    def watched(self: StageTrainer, *args: Any) -> Any:
        seen.append(found())
        return step(self, *args)

    monkeypatch.setattr(StageTrainer, "step", watched)
    settings = [*small_settings, "stage_epochs=1,0,0", "device=cpu", *words]
    assert main(["train", "--preset", "tiny", "--data", str(small_store), "--out", str(tmp_path), *settings]) == 0
    assert seen == [(timed, False)] * 2
