"""What a checkpoint of the released code's training tells besides its tensors: stage, temperature and kind of pool.

PyTorch Lightning (1.5, the authors' version) writes the number of finished epochs and, if the model keeps them, its
arguments into a checkpoint.
"""

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prior_fast.config import BankConfig, RunConfig, preset
from prior_fast.errors import UsageError
from prior_fast.model.prototypes import temperature

# The released code writes these files at the end of stages 1 and 2.
_NAMES = {"stage2_start": 1, "stage3_start": 2}
_POOLS: dict[Any, Literal["mean", "attention"]] = {"avg": "mean", "attention": "attention"}
_MOST_EPOCHS = 10**6
# Its strategies end at a tenth of the first temperature.
_DECAYS: dict[Any, Literal["fixed", "linear", "exponential"]] = {
    "fixed": "fixed", "linear": "linear", "exp": "exponential",
}  # fmt: skip
_END = 0.1


@dataclass(frozen=True)
class Recorded:
    """The state of a training run.

    Attributes:
        stage: the stage that was trained last: 1, 2 or 3.
        evidence: where the stage was read.
        pool: the pool of a sentence's tokens; None if the file does not tell.
        config: the run's config, `released` with the epochs and the bank's temperatures of the file.
        tau: the bank's temperature in the last step.
    """

    stage: int
    evidence: str
    pool: Literal["mean", "attention"] | None
    config: RunConfig
    tau: float


def recorded(path: Path, facts: Mapping[str, Any], stage: int | None = None) -> Recorded:
    """The state of the run that wrote the file at `path`.

    facts: the file's entries besides its tensors.
    stage: the user's statement, which is taken in place of the file's.

    Raises:
        UsageError: an entry has a value that the released code does not know.
    """
    arguments = facts.get("hyper_parameters")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    config = preset("released")
    one, two, three = (
        _number(path, f"stage{number}_epochs", arguments.get(f"stage{number}_epochs", default))
        for number, default in enumerate(config.stage_epochs, start=1)
    )
    epochs = (one, two, three)
    decay = _choice(path, "temp_decay", arguments.get("temp_decay", "fixed"), _DECAYS)
    bank = BankConfig(init="gaussian", tau_decay=decay)
    if decay != "fixed":
        bank = dataclasses.replace(bank, tau_end=bank.tau_start * _END)
    config = dataclasses.replace(config, stage_epochs=epochs, model=dataclasses.replace(config.model, bank=bank))
    done = facts.get("epoch")
    done = None if done is None else _number(path, "epoch", done)
    found, evidence = _stage(path, done, epochs)
    if stage is not None:
        found, evidence = stage, f"--stage {stage}"
    ends = {1: one, 2: one + two, 3: one + two + three}
    reached = ends[found] if done is None or stage is not None else done
    progress = (reached - one) / max(1, two + three)
    pool = arguments.get("gahter_pool")  # the released code's spelling
    return Recorded(
        stage=found,
        evidence=evidence,
        pool=None if pool is None else _choice(path, "gahter_pool", pool, _POOLS),
        config=config,
        tau=temperature(bank, min(1.0, max(0.0, progress))),
    )


def _stage(path: Path, done: int | None, epochs: tuple[int, int, int]) -> tuple[int, str]:
    if done is not None:
        counts = ", ".join(map(str, epochs))
        found = 1 if done <= epochs[0] else 2 if done <= epochs[0] + epochs[1] else 3
        return found, f"{done} finished epochs; the stages have {counts}"
    if path.stem in _NAMES:
        return _NAMES[path.stem], f"the file's name, {path.name}"
    return 3, "nothing in the file; taken as the end of a run"


def _choice(path: Path, name: str, value: Any, known: Mapping[Any, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise UsageError(
            f"{path} was trained with {name}={_shown(value)}: it can be run only with {' or '.join(known)}"
        )
    return known[value]


def _number(path: Path, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_EPOCHS:
        raise UsageError(f"{path}: its entry {name} is {_shown(value)}, not a number of epochs")
    return value


def _shown(value: Any) -> str:
    """A value of the file in a message: of one line, and not long."""
    if isinstance(value, int) and abs(value) > 10**18:
        return "a number over 10^18"  # Python refuses to write numbers of thousands of digits
    return reprlib.repr(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
