"""Learning rates, temperatures and the number of steps."""

import math

import pytest

from prior_fast.config import apply_overrides, preset
from prior_fast.training.schedule import Schedule


def schedule(*words: str, steps_per_epoch: int = 10) -> Schedule:
    return Schedule(apply_overrides(preset("paper"), words), steps_per_epoch)


def test_each_stage_warms_up_and_anneals_to_zero() -> None:
    s = schedule()
    assert [s.steps(stage) for stage in (1, 2, 3)] == [200, 300, 500]
    assert s.total_steps == 1000
    for stage, warmup, start in ((1, 10, 1e-7), (2, 10, 1e-7), (3, 50, 1e-8)):
        assert s.learning_rate(stage, 0) == pytest.approx(start)
        assert s.learning_rate(stage, warmup) == pytest.approx(1e-5)
        middle = warmup + (s.steps(stage) - warmup) // 2
        assert s.learning_rate(stage, middle) == pytest.approx(5e-6, rel=0.02)
        assert 0 < s.learning_rate(stage, s.steps(stage) - 1) < 1e-8
        assert s.learning_rate(stage, warmup - 1) == pytest.approx(1e-5)
        assert s.learning_rate(stage, warmup - 2) < 0.999e-5
        rising = [s.learning_rate(stage, step) for step in range(warmup + 1)]
        falling = [s.learning_rate(stage, step) for step in range(warmup, s.steps(stage))]
        assert rising == sorted(rising)
        assert falling == sorted(falling, reverse=True)


def test_warm_up_and_cosine_are_the_released_schedulers() -> None:
    """Recorded from LinearWarmupCosineAnnealingLR of lightning-bolts, stage 3's rates, 4 steps of warm-up in 12."""
    recorded = [
        1e-08, 1.6733333333333333e-06, 3.3366666666666668e-06, 5e-06, 5e-06, 4.809698831278217e-06,
        4.2677669529663685e-06, 3.4567085809127247e-06, 2.4999999999999998e-06, 1.5432914190872755e-06,
        7.322330470336313e-07, 1.9030116872178317e-07,
    ]  # fmt: skip
    words = ("stage_epochs=0,0,3", "warmup_epochs=1,1,1", "learning_rate=1e-5,1e-5,5e-6")
    s = schedule(*words, steps_per_epoch=4)
    assert [s.learning_rate(3, step) for step in range(12)] == pytest.approx(recorded, rel=1e-9)


def test_temperature_decays_over_stages_two_and_three() -> None:
    s = schedule()
    assert s.tau(2, 0) == 0.9
    assert s.tau(3, 499) == pytest.approx(0.01)
    assert s.tau(2, 299) > s.tau(3, 0)
    assert s.tau(3, 0) / s.tau(2, 299) == pytest.approx(s.tau(2, 1) / s.tau(2, 0))
    assert s.tau(3, 0) == pytest.approx(0.9 * math.exp(300 / 799 * math.log(0.01 / 0.9)))
    assert schedule("model.bank.tau_decay=fixed").tau(3, 499) == 0.9
    assert schedule("model.bank.tau_decay=linear").tau(3, 100) == pytest.approx(0.9 - 0.89 * 400 / 799)


def test_a_limit_on_the_steps_shortens_the_schedule() -> None:
    s = schedule("max_steps_per_stage=4")
    assert s.total_steps == 12
    assert s.tau(3, 3) == pytest.approx(0.01)
    assert all(s.learning_rate(stage, step) > 0 for stage in (1, 2, 3) for step in range(4))


def test_stages_without_epochs_are_passed_over() -> None:
    s = schedule("stage_epochs=0,0,1")
    assert [s.steps(stage) for stage in (1, 2, 3)] == [0, 0, 10]
    assert s.tau(3, 0) == 0.9


def test_one_step_is_enough() -> None:
    s = schedule("max_steps_per_stage=1")
    assert s.learning_rate(1, 0) == pytest.approx(1e-5)
    assert s.tau(2, 0) == 0.9
