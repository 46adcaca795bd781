"""Checks the values of a config, alone and in combination."""

from prior_fast.config.schema import RunConfig
from prior_fast.errors import UsageError


def validate_config(config: RunConfig) -> None:
    """Raise UsageError, with the field's name, for the first value that can't be used."""
    model, bank, data = config.model, config.model.bank, config.data
    _require(config.batch_size >= 2, "batch_size", config.batch_size, "at least 2: a contrastive loss needs negatives")
    _require(min(config.stage_epochs) >= 0, "stage_epochs", config.stage_epochs, "0 or more each")
    _require(sum(config.stage_epochs) > 0, "stage_epochs", config.stage_epochs, "at least one epoch in total")
    _require(min(config.learning_rate) > 0, "learning_rate", config.learning_rate, "more than 0 each")
    _require(min(config.warmup_epochs) >= 0, "warmup_epochs", config.warmup_epochs, "0 or more each")
    _require(0 < bank.tau_end <= bank.tau_start, "model.bank.tau_end", bank.tau_end, "more than 0, at most tau_start")
    _require(0 <= model.mask_ratio < 1, "model.mask_ratio", model.mask_ratio, "at least 0 and less than 1")
    _require(model.temperature > 0, "model.temperature", model.temperature, "more than 0")
    _require(8 <= config.data.max_tokens <= 512, "data.max_tokens", config.data.max_tokens, "8 to 512")
    _require(
        model.attention == "sigmoid" or model.uses_patches(3),
        "model.attention",
        model.attention,
        "sigmoid with model.use_local_alignment=false and model.use_reconstruction=false, which use no attention",
    )
    stages = len(model.image.depths)
    _require(
        7 * model.image.shrink * 2 ** (stages + 1) == 224,
        "model.image.shrink",
        model.image.shrink,
        f"{224 // (7 * 2 ** (stages + 1))} with the {stages} stages of model.image.depths, for a map of 7x7",
    )
    _require(2 <= model.decoder_blocks <= 5, "model.decoder_blocks", model.decoder_blocks, "2 to 5")
    least = 2 ** (model.decoder_blocks - 1)
    _require(
        model.decoder_width >= 0 and model.decoder_width % least == 0,
        "model.decoder_width",
        model.decoder_width,
        f"0 or a multiple of {least}, for model.decoder_blocks={model.decoder_blocks}",
    )
    _require(config.text_learning_rate >= 0, "text_learning_rate", config.text_learning_rate, "0 or more")
    _require(model.attention_bias <= 0, "model.attention_bias", model.attention_bias, "0 or less")
    for name in ("max_steps_per_stage", "weight_decay", "clip_norm", "seed", "checkpoint_every", "checkpoint_minutes"):
        _require(getattr(config, name) >= 0, name, getattr(config, name), "0 or more")
    _require(config.processes >= 0, "processes", config.processes, "0 or more")
    _require(
        config.processes == 0 or config.batch_size % config.processes == 0,
        "processes",
        config.processes,
        f"a divisor of batch_size={config.batch_size}, which they share evenly",
    )
    for name in ("log_every", "keep_checkpoints"):
        _require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    _require(
        all(0 <= share <= 1 for share in data.partial_reports),
        "data.partial_reports",
        data.partial_reports,
        "0 to 1 each",
    )
    _require(data.workers >= 0, "data.workers", data.workers, "0 or more")
    _require(0 <= data.token_bucket <= 512, "data.token_bucket", data.token_bucket, "0 to 512")
    _require(not data.jpegs or data.source == "dali", "data.jpegs", data.jpegs, "empty unless data.source=dali")
    _require(model.embed_dim % 16 == 0, "model.embed_dim", model.embed_dim, "a multiple of 16, for the image decoder")
    for name, width, heads in (
        ("model.text.heads", model.text.hidden_size, model.text.heads),
        ("model.sentence_decoder.heads", model.embed_dim, model.sentence_decoder.heads),
        ("model.report_pool_heads", model.embed_dim, model.report_pool_heads),
        ("model.image.pool_heads", 2 ** (len(model.image.depths) + 1) * model.image.width, model.image.pool_heads),
    ):
        _require(heads >= 1 and width % heads == 0, name, heads, f"a divisor of the width {width}")


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name}={value}: must be {wanted}")
