"""Other libraries write nothing where they are silenced, and what was set before is set again."""

import os
import subprocess
import sys
import warnings

import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from huggingface_hub.utils import logging as hub
from transformers.utils import logging as models

from prior_fast.console.quiet import quiet_compiler, quiet_prints, quiet_transformers


def test_switches_are_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[object, ...]:
        return (
            *(are_progress_bars_disabled(), models.is_progress_bar_enabled()),
            *(hub.get_verbosity(), models.get_verbosity()),
        )

    before = state()
    with pytest.raises(KeyError), quiet_transformers():
        hub.get_logger("huggingface_hub.any").warning("a word")
        models.get_logger("transformers.any").warning("a word")
        list(models.tqdm(range(3)))
        assert are_progress_bars_disabled() and not models.is_progress_bar_enabled()
        raise KeyError
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_prints_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_prints():
        print("a word")
    print("shown")
    assert capsys.readouterr().out == "shown\n"


def test_only_torchs_own_warnings_are_silenced_while_it_compiles() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_compiler():
            for module in ("torch._inductor.lowering", "prior_fast.ops.common.cpp"):
                warnings.warn_explicit(module, UserWarning, "file.py", 1, module=module)
    assert [str(each.message) for each in caught] == ["prior_fast.ops.common.cpp"]


PROFILES = """
import torch
from torch.profiler import ProfilerActivity, profile
from prior_fast.console.quiet import quiet_profiler
quiet_profiler()
for _ in range(2):
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        torch.ones(3) + 1
assert any(event.name == "aten::add" for event in profiler.events())
"""


def test_the_profiler_writes_no_lines() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", PROFILES], env=clean, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
