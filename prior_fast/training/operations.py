"""Counts the operations of a training step from the model's config and the batch's sizes.

It counts matrix products and convolutions, a multiplication and an addition as two operations. It leaves out
elementwise work, work on padding and filler, and recomputation that saves memory. Letters: D embedding width,
P patches, Q queries.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import pairwise

from prior_fast.batch import PackedBatch
from prior_fast.config import ImageEncoderConfig, ModelConfig
from prior_fast.model.image_decoder import decoder_widths
from prior_fast.model.image_encoder import EXPANSION, MAP_SIZE

IMAGE_SIZE = 224
PATCHES = MAP_SIZE**2
Counts = dict[str, int]


@dataclass(frozen=True)
class Sizes:
    """The sizes that determine the operations of one or more steps, over all ranks; sums over the steps.

    Attributes:
        pairs: images and reports.
        tokens: of the reports, [CLS] and [SEP] included, filler left out.
        sentences: of the reports.
        squared_pairs: sum over the steps of the square of the joined batch.
        squared_tokens: sum of the squares of the reports' tokens.
        squared_sentences: sum of the squares of the reports' sentences.
    """

    pairs: int = 0
    tokens: int = 0
    sentences: int = 0
    squared_pairs: int = 0
    squared_tokens: int = 0
    squared_sentences: int = 0

    def __add__(self, other: "Sizes") -> "Sizes":
        return Sizes(*(a + b for a, b in zip(astuple(self), astuple(other))))


def sizes_of(batches: Iterable[PackedBatch]) -> Sizes:
    """The sizes of batches of a single process. Reads their offsets, and so waits for a GPU."""
    total = Sizes()
    for batch in batches:
        lengths, sentences = batch.cu_tokens.diff().tolist(), batch.cu_sentences.diff().tolist()
        squares = (len(lengths) ** 2, sum(n * n for n in lengths), sum(n * n for n in sentences))
        total += Sizes(len(lengths), sum(lengths), sum(sentences), *squares)
    return total


def step_operations(model: ModelConfig, stage: int, sizes: Sizes) -> int:
    """Operations of the forward and backward passes.

    A product's backward pass is two products of its size, one for each factor. The first convolution needs no gradient
    for the images.

    model: config with the text encoder's real sizes (`prior_fast.model.build.structure_of`).
    """
    forward = sum(forward_operations(model, stage, sizes).values())
    return 3 * forward - 2 * sizes.pairs * _stem(model.image)


def forward_operations(model: ModelConfig, stage: int, sizes: Sizes) -> Counts:
    """Operations of a stage's forward pass by part."""
    width, bank = model.embed_dim, model.bank.prototypes
    pairs, sentences = sizes.pairs, sizes.sentences
    image_width = 2 ** (len(model.image.depths) + 1) * model.image.width
    patches = PATCHES if model.uses_patches(stage) else 0
    projections = pairs * (patches + 1) * _projection(image_width, width, model.projection)
    projections += sentences * _projection(model.text.hidden_size, width, model.projection)
    products = {
        "image_encoder": pairs * _resnet(model.image),
        "image_pool": pairs * (4 * image_width**2 + (1 + 2 * (PATCHES + 1) * model.image.pool_heads) * image_width),
        "text_encoder": _text_encoder(model, sizes),
        "projections": projections,
        "report_pool": _report_pool(model, sizes),
        "global_alignment": sizes.squared_pairs * width,
    }
    if model.use_local_alignment:
        products["local_alignment"] = _local_alignment(width, sizes)
        if model.aligns_attention:
            # Both directions of all sentences with the patches of all images; steps of one batch size.
            images = sizes.squared_pairs // max(pairs, 1)
            products["attention_alignment"] = (
                2 * PATCHES * sentences * images * width + 2 * (PATCHES * pairs + sentences) * width**2
            )
    elif model.reconstructs(stage):
        products["local_alignment"] = _context_for_image(width, sizes)
    if model.reads_bank(stage):
        # The generated sentences are looked up too, and the KL term needs the logits of both again.
        products["bank"] = (6 if model.reconstructs(stage) else 2) * sentences * bank * width
    if model.reconstructs(stage):
        # The generated sentences are pooled and aligned like the encoder's.
        products["report_pool"] *= 2
        products["global_alignment"] *= 2
        products["sentence_decoder"] = pairs * _sentence_decoder(model)
        products["image_decoder"] = pairs * _image_decoder(
            decoder_widths(2 * width, model.decoder_blocks, model.decoder_width)
        )
    return {name: 2 * count for name, count in products.items()}


# The functions below count multiplications with an addition, which are two operations.


def _stem(image: ImageEncoderConfig) -> int:
    return (IMAGE_SIZE // image.shrink // 2) ** 2 * 7 * 7 * image.width


def _resnet(image: ImageEncoderConfig) -> int:
    """For one image: the stem, and bottlenecks of 1x1, 3x3 (with the stride) and 1x1 convolutions."""
    count, channels = _stem(image), image.width
    side = IMAGE_SIZE // image.shrink // 4
    for stage, depth in enumerate(image.depths):
        planes = image.width * 2**stage
        wide = planes * EXPANSION
        for block in range(depth):
            before, side = side, side // 2 if stage and not block else side
            count += before**2 * channels * planes + side**2 * (9 * planes**2 + planes * wide)
            if not block:
                count += side**2 * channels * wide
            channels = wide
    return count


def _projection(inputs: int, outputs: int, kind: str) -> int:
    return inputs * outputs + (outputs**2 if kind == "mlp" else 0)


def _text_encoder(model: ModelConfig, sizes: Sizes) -> int:
    """BERT over the tokens without padding, and the queries and keys of the sentence pool."""
    text = model.text
    token = 4 * text.hidden_size**2 + 2 * text.hidden_size * text.intermediate_size
    count = text.layers * (sizes.tokens * token + 2 * text.hidden_size * sizes.squared_tokens)
    if model.sentence_pool == "attention":
        count += 2 * (sizes.tokens - 2 * sizes.pairs) * text.hidden_size * (text.hidden_size // 8)
    return count


def _report_pool(model: ModelConfig, sizes: Sizes) -> int:
    """One query for each report over its sentences and their mean, and the report's projection."""
    width, keys = model.embed_dim, sizes.sentences + sizes.pairs
    projected = 2 * width**2 if model.projection == "mlp" else 0
    return sizes.pairs * (2 * width**2 + projected) + keys * (2 * width**2 + 2 * width)


def _local_alignment(width: int, sizes: Sizes) -> int:
    """Attention in both directions, the predictor on both sides, and the products between a report's sentences."""
    rows = PATCHES * sizes.pairs
    projected = 3 * (rows + sizes.sentences) * width**2
    attended = 4 * PATCHES * sizes.sentences * width
    return projected + attended + 2 * rows * width**2 + sizes.squared_sentences * width


def _context_for_image(width: int, sizes: Sizes) -> int:
    """Attention of patches over sentences: queries of the patches, three projections of the sentences."""
    rows = PATCHES * sizes.pairs
    return (rows + 3 * sizes.sentences) * width**2 + 2 * PATCHES * sizes.sentences * width


def _sentence_decoder(model: ModelConfig) -> int:
    decoder, width = model.sentence_decoder, model.embed_dim
    query = 6 * width**2 + 2 * width * decoder.intermediate_size + 2 * width * (decoder.queries + PATCHES)
    return decoder.layers * (decoder.queries * query + 2 * PATCHES * width**2)


def _image_decoder(widths: list[int]) -> int:
    """For one image: blocks of a transposed 4x4 and a 3x3 convolution, then a last 3x3 convolution."""
    count, side = 0, MAP_SIZE
    for wide, narrow in pairwise(widths):
        count += side**2 * 16 * wide * narrow + (2 * side) ** 2 * 9 * narrow**2
        side *= 2
    return count + side**2 * 9 * widths[-1]
