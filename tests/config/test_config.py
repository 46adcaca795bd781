"""The config: presets, key=value settings, saving, and invalid values."""

import json

import pytest

from prior_fast.config import PRESETS, RunConfig, apply_overrides, from_dict, preset, to_dict, validate_config
from prior_fast.config.overrides import field_names
from prior_fast.errors import UsageError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: str) -> None:
    config = preset(name)
    validate_config(config)
    assert config.preset == name
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_paper_preset_has_the_papers_numbers() -> None:
    config = preset("paper")
    assert config.stage_epochs == (20, 30, 50)
    assert config.batch_size == 128
    assert config.optimizer == "adam"
    assert config.learning_rate == (1e-5,) * 3
    assert config.weight_decay == 1e-6
    assert config.model.embed_dim == 768
    assert config.model.sentence_decoder.layers == 6
    assert not config.model.sentence_decoder.causal
    assert (config.model.bank.tau_start, config.model.bank.tau_end) == (0.9, 0.01)
    assert not config.data.flip


def test_words_change_fields_of_every_kind() -> None:
    words = [
        "batch_size=64", "stage_epochs=1,2,3", "model.bank.prototypes=7", "data.flip=yes", "learning_rate=1,2e-3,3",
        "model.attention=softmax", "model.image.depths=2,2", "model.text.weights=a=b", "clip_norm=0",
    ]  # fmt: skip
    config = apply_overrides(preset("paper"), words)
    assert config.batch_size == 64
    assert config.stage_epochs == (1, 2, 3)
    assert config.model.bank.prototypes == 7
    assert config.data.flip is True
    assert config.learning_rate == (1.0, 2e-3, 3.0)
    assert config.model.attention == "softmax"
    assert config.model.image.depths == (2, 2)
    assert config.model.text.weights == "a=b"
    assert config.model.text.layers == 12


def test_every_field_can_be_named() -> None:
    config = preset("tiny")
    for name in field_names(config):
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert apply_overrides(config, [f"{name}={text}"]) == config


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch_size", "'batch_size' is not of the form key=value"),
        ("batchsize=3", "unknown setting 'batchsize': did you mean 'batch_size'?"),
        ("prototypes=3", "did you mean 'model.bank.prototypes'?"),
        ("model.bnak.prototypes=3", "did you mean 'model.bank.prototypes'?"),
        ("model=3", "unknown setting 'model'"),
        ("xyzzy=3", "unknown setting 'xyzzy'"),
        ("batch_size=many", "batch_size=many: must be a whole number"),
        ("weight_decay=", "weight_decay=: must be a number"),
        ("stage_epochs=1,2", "stage_epochs=1,2: needs 3 values separated by commas, got 2"),
        ("data.flip=maybe", "data.flip=maybe: choose true or false"),
        ("model.attention=relu", "model.attention=relu: choose from sigmoid, softmax"),
    ],
)
def test_wrong_words_say_what_to_change(word: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        apply_overrides(preset("paper"), [word])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "word",
    [
        "batch_size=1", "stage_epochs=0,0,0", "stage_epochs=-1,1,1", "learning_rate=0,1,1", "model.bank.tau_end=0",
        "model.bank.tau_end=2", "model.mask_ratio=1", "model.text.heads=7", "model.embed_dim=40", "keep_checkpoints=0",
        "seed=-1", "data.max_tokens=1000", "model.temperature=0", "data.workers=-1",
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_named(word: str) -> None:
    with pytest.raises(UsageError, match=word.split("=")[0].replace(".", r"\.")):
        validate_config(apply_overrides(preset("paper"), [word]))


def test_unknown_presets_and_saved_keys_are_refused() -> None:
    with pytest.raises(UsageError, match="no preset 'papr': choose from paper, released, tiny"):
        preset("papr")
    with pytest.raises(UsageError, match=r"unknown setting 'batch_sise' in a saved configuration.*'batch_size'"):
        from_dict(RunConfig, {"batch_sise": 3})
