"""Settings that make the model small enough for a test, with every part of its structure kept."""

SMALL_MODEL = (
    "precision=fp32",
    "model.image.width=8",
    "model.image.pool_heads=2",
    "model.text.hidden_size=32",
    "model.text.heads=2",
    "model.text.intermediate_size=32",
    "model.text.layers=1",
    "model.sentence_decoder.layers=1",
    "model.sentence_decoder.intermediate_size=32",
    "model.embed_dim=32",
    "model.bank.prototypes=16",
)
