"""The tables of the settings: their meanings, their values in the presets and the sources of these values."""

import re
from typing import Any

from prior_fast.config import PRESETS, preset
from prior_fast.config.describe import Described, describe
from prior_fast.config.overrides import field_names, setting_text
from prior_fast.config.sources import RELEASED_FILES, SOURCES, Source
from prior_fast.downstream import config as fine_tuned
from prior_fast.evaluation import config as evaluation
from prior_fast.evaluation import learned_config as learned
from prior_fast.tables import markdown_table

TOP = "run"  # the group of the settings without a dot
_PLACE = re.compile(r"(?<![\w.])(?:" + "|".join(map(re.escape, RELEASED_FILES)) + r"):\d+(?:-\d+)?")


def settings_groups() -> dict[str, list[str]]:
    """The names of all settings, by the part of the name before the last dot."""
    groups: dict[str, list[str]] = {}
    for name in field_names(preset("paper")):
        groups.setdefault(name.rpartition(".")[0] or TOP, []).append(name)
    return groups


def settings_table(group: str) -> list[str]:
    """The lines of a group's table.

    Raises:
        KeyError: there is no such group, or a setting has no source.
    """
    configs = {name: make() for name, make in PRESETS.items()}
    described = {each.name: each for each in describe(configs["paper"])}
    rows = []
    for name in settings_groups()[group]:
        paper, *others = (setting_text(config, name) for config in configs.values())
        sources = SOURCES[name]
        cells = [_code(paper), *("" if text == paper else _code(text) for text in others)]
        rows.append([f"`{name}`", _meaning(described[name]), *cells, _place(sources.paper), _explained(name)])
    header = ("setting", "meaning", *(f"`{name}`" for name in configs), "source", "explanation")
    return markdown_table(header, rows, range(len(header)))


def task_table(task: str) -> list[str]:
    """The lines of the table of a task's settings: meaning and default.

    Raises:
        KeyError: there is no such task.
    """
    config, others = task_configs()[task]
    rows = [
        [f"`{each.name}`", _meaning(each), _code(each.text)] for each in describe(config) if each.name not in others
    ]
    return markdown_table(("setting", "meaning", "default"), rows, range(3))


def task_configs() -> dict[str, tuple[Any, tuple[str, ...]]]:
    """By task: its config with the defaults, and the settings in it that belong to other tasks."""
    found: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for own, config in ((evaluation.OWN, evaluation.EvaluationConfig()), (learned.OWN, learned.LearnedConfig())):
        for task in own:
            found[task] = config, tuple(name for other in own if other != task for name in own[other])
    return found | {task: (fine_tuned.settings_of(task).CONFIG(), ()) for task in fine_tuned.TASKS}


def _meaning(setting: Described) -> str:
    """The meaning, and the choices or the type."""
    choices = ", ".join(_code(choice) for choice in setting.choices)
    return f"{setting.meaning} ({choices or setting.kind})".replace("|", "\\|")


def _explained(name: str) -> str:
    sources = SOURCES[name]
    parts = [_words(sources.paper)]
    for other, source in (("released", sources.released), ("tiny", sources.tiny)):
        if source is not None:
            words = [_place(source), _words(source)] if source.kind != "ours" else [_words(source)]
            parts.append(f"`{other}`: {', '.join(filter(None, words))}")
    return "; ".join(filter(None, parts))


def _words(source: Source) -> str:
    """Quote and note, with a link to each place of the released code."""
    quote = f'"{source.quote}"' if source.quote else ""
    note = _PLACE.sub(lambda found: _place(Source("released", found[0])), source.note)
    return ", ".join(filter(None, (quote, note)))


def _place(source: Source) -> str:
    return f"[{source.place}]({source.link})" if source.kind == "released" else str(source)


def _code(text: Any) -> str:
    return f"`{text}`" if text else "empty"
