"""Every field of the config, its type, its default, which is its value in the preset `paper`, and its meaning.

`prior_fast.config.sources` has the source of every value. `prior-fast train --settings` and docs/configuration.md show
the meanings.
"""

from dataclasses import dataclass, field
from typing import Literal

from prior_fast.config.setting import DEVICE, setting


@dataclass(frozen=True)
class ImageEncoderConfig:
    """A torchvision bottleneck ResNet with one input channel, and attention pooling."""

    depths: tuple[int, ...] = setting((3, 4, 6, 3), "blocks of each stage of the ResNet")
    width: int = setting(64, "channels of the stem; stage i, counted from 0, has 2 ** (i + 2) times as many")
    shrink: int = setting(
        1, "images are first averaged over squares of this side; each factor 2 needs one stage less in depths"
    )
    pool_heads: int = setting(8, "heads of the attention pool of an image's patches")
    weights: str = setting(
        "imagenet",
        "what it starts from: imagenet (torchvision's IMAGENET1K_V1), imagenet-v2 (its newer recipe), random, or "
        "a file of a ResNet's tensors (.safetensors, .pt, .pth)",
    )


@dataclass(frozen=True)
class TextEncoderConfig:
    """BERT. The sizes apply only to weights="random"; otherwise the weights determine them."""

    weights: str = setting(
        "emilyalsentzer/Bio_ClinicalBERT", "what BERT starts from: a Hugging Face name or folder, or random"
    )
    hidden_size: int = setting(
        768, "width of BERT; the weights decide it unless they are random, as all sizes of model.text"
    )
    layers: int = setting(12, "layers of BERT")
    heads: int = setting(12, "attention heads of each layer; they divide hidden_size")
    intermediate_size: int = setting(3072, "width between the two linear layers of each layer")
    dropout: float = setting(0.1, "share of the activations that training drops")
    attention_dropout: float = setting(
        0.1, "not applied, since torch's packed attention has no dropout; kept for exported weights"
    )
    hidden_act: Literal["gelu", "gelu_new", "relu", "silu"] = setting(
        "gelu", "activation between the two linear layers of each layer"
    )
    layer_norm_eps: float = setting(1e-12, "epsilon of the layer normalizations")
    positions: int = setting(512, "positions that a report's tokens can have; at least data.max_tokens")
    token_types: int = setting(2, "rows of the segment table, of which only the first is used")
    residual: Literal["float32", "bfloat16"] = setting(
        "float32",
        "what precision=bf16 stores between a layer's additions; their sums are float32; not a part of the weights",
    )


@dataclass(frozen=True)
class BankConfig:
    """The sentence prototype memory bank."""

    prototypes: int = setting(512, "number of sentence prototypes in the bank")
    init: Literal["gaussian_l1", "gaussian", "sentences"] = setting(
        "gaussian_l1",
        "what the prototypes start from: normal draws with L1 normalization, normal draws, or clusters of the training "
        "sentences as encoded at the start of stage 2",
    )
    tau_start: float = setting(0.9, "temperature of the Gumbel-softmax at the start of stage 2")
    tau_end: float = setting(0.01, "temperature at the end of stage 3; at most tau_start")
    tau_decay: Literal["exponential", "linear", "fixed"] = setting(
        "exponential", "how the temperature falls from one to the other; fixed: it stays at tau_start"
    )
    precision: Literal["ieee", "tf32x3"] = setting(
        "ieee",
        "precision of float32 products on a GPU: ieee lets the fastest backend serve, tf32x3 asks for the kernels on "
        "tensor cores",
    )


@dataclass(frozen=True)
class SentenceDecoderConfig:
    """The BERT decoder that generates sentence prototypes from learned queries."""

    layers: int = setting(6, "BERT layers of the decoder")
    heads: int = setting(12, "attention heads of each layer; they divide model.embed_dim")
    intermediate_size: int = setting(3072, "width between the two linear layers of each layer")
    queries: int = setting(16, "learned queries; stage 3 uses at most as many sentences of a report")
    dropout: float = setting(0.1, "share of the activations that training drops")
    causal: bool = setting(False, "whether a query attends only to itself and the queries before it")
    residual: Literal["float32", "bfloat16"] = setting(
        "float32", "what precision=bf16 stores between a layer's additions, as in the text encoder"
    )


@dataclass(frozen=True)
class ModelConfig:
    """PRIOR."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    sentence_decoder: SentenceDecoderConfig = field(default_factory=SentenceDecoderConfig)
    embed_dim: int = setting(768, "width of the space of images, patches, sentences and reports; a multiple of 16")
    projection: Literal["mlp", "linear"] = setting("mlp", "what maps the encoders' outputs into that space")
    sentence_pool: Literal["attention", "mean"] = setting("attention", "how the tokens of a sentence become one vector")
    report_pool_heads: int = setting(8, "heads of the attention pool of a report's sentences")
    attention: Literal["sigmoid", "softmax"] = setting(
        "sigmoid", "what makes weights of the scores of the cross-attention between patches and sentences"
    )
    temperature: float = setting(0.01, "the learned logit scales start at 1 / temperature")
    mask_ratio: float = setting(0.5, "share of the image embedding's channels that image reconstruction masks")
    decoder_blocks: int = setting(
        5, "blocks of the image decoder; each doubles the side of the reconstructed image, from 7 pixels"
    )
    decoder_width: int = setting(
        0, "channels after the decoder's first block; each other block halves them; 0: embed_dim"
    )
    decoder_norm: Literal["after_relu", "before_relu"] = setting(
        "after_relu", "where the image decoder normalizes batches"
    )
    layout: Literal["patches", "released"] = setting(
        "patches",
        "what a patch is: the channels at one position of the image encoder's map, or the released code's view, "
        "which mixes positions and channels",
    )
    use_attention_alignment: bool = setting(
        False, "whether local alignment also trains the attention to choose a sentence's image"
    )
    attention_bias: float = setting(0.0, "where the bias of the attention's logits starts; 0 or less")
    # A part that is turned off keeps its weights, untrained, so that checkpoints have one shape.
    use_bank: bool = setting(True, "false: stages 2 and 3 use the sentences themselves (ablation)")
    use_local_alignment: bool = setting(True, "false: no stage has the local terms (ablation)")
    use_reconstruction: bool = setting(True, "false: stage 3 has the terms of stage 2 (ablation)")

    def reads_bank(self, stage: int) -> bool:
        """Whether `stage` (1, 2 or 3) reads the bank and trains it."""
        return stage >= 2 and self.use_bank

    def reconstructs(self, stage: int) -> bool:
        """Whether `stage` (1, 2 or 3) runs the two decoders and trains them."""
        return stage >= 3 and self.use_reconstruction

    @property
    def aligns_attention(self) -> bool:
        """Whether there is the term of attention alignment. A softmax has the same mean weight for all images."""
        return self.use_attention_alignment and self.use_local_alignment and self.attention == "sigmoid"

    def uses_patches(self, stage: int) -> bool:
        """Whether `stage` (1, 2 or 3) uses the embeddings of an image's patches and trains their projection."""
        return self.use_local_alignment or self.reconstructs(stage)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms."""

    global_alignment: tuple[float, float, float] = setting(
        (1.0, 1.0, 10.0), "weight of the contrastive loss of images and reports, one for each stage"
    )
    local_image: float = setting(
        1.0, "weight of the local loss that draws an image's patches to the sentences that they read"
    )
    local_text: float = setting(
        1.0, "weight of the local loss that tells a report's sentences apart by the patches that they read"
    )
    attention_alignment: float = setting(
        1.0, "weight of the attention's choice of a sentence's image, with model.use_attention_alignment=true"
    )
    prototype: float = setting(
        10.0, "weight of the difference of sentences and what they read from the bank, in stages 2 and 3"
    )
    image_reconstruction: float = setting(
        1.0, "weight of the reconstructed image's difference to the image, in stage 3"
    )
    prototype_generation: float = setting(
        10.0, "weight of the difference of generated and real sentence prototypes, in stage 3"
    )
    prototype_kl: float = setting(1.0, "weight of the divergence of their distributions over the bank, in stage 3")
    report_generation: float = setting(1.0, "weight of the contrastive loss of generated and real reports, in stage 3")


@dataclass(frozen=True)
class DataConfig:
    """How the loader processes the prepared pairs."""

    max_tokens: int = setting(256, "tokens of a report, at most, with [CLS] and [SEP]; whole sentences are kept")
    shuffle_sentences: bool = setting(True, "whether each epoch puts a report's sentences into a new order")
    # A model that has seen short reports reads a prompt of one sentence better.
    partial_reports: tuple[float, float, float] = setting(
        (0.0, 0.0, 0.0),
        "share of reports of which only the first sentences are used, one to all of them, after the shuffle; one "
        "for each stage",
    )
    rotation: float = setting(5.0, "degrees by which an image is turned, at most, to either side")
    interpolation: Literal["bilinear", "nearest"] = setting("bilinear", "how rotated pixels are computed")
    flip: bool = setting(False, "whether half of the images are mirrored left to right")
    source: Literal["memory", "dali", "workers"] = setting(
        "memory",
        "where images come from: the prepared array, NVIDIA DALI, or processes of PyTorch's DataLoader "
        "(docs/loading.md)",
    )
    images: Literal["auto", "disk", "host", "gpu"] = setting(
        "auto", "where data.source=memory keeps the array; auto: where there is room"
    )
    jpegs: str = setting(
        "", "data.source=dali: decode the full-size files of this folder, the one given to prepare --images"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "type of the images")
    last: Literal["drop", "fill"] = setting(
        "drop", "an epoch's incomplete last batch: drop it, or fill it with the epoch's first studies"
    )
    token_bucket: int = setting(0, "pad the text encoder's tokens to a multiple of this; 0: no padding")
    workers: int = setting(2, "threads or processes that make batches ahead; 0: the training process makes them")
    verify: Literal["full", "sizes"] = setting(
        "full", "check the dataset's files before training: their SHA-256, or only their sizes"
    )


@dataclass(frozen=True)
class RunConfig:
    """A training run."""

    preset: str = setting("paper", "name of the preset that the values are from; `--preset` sets it")
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    data: DataConfig = field(default_factory=DataConfig)
    stage_epochs: tuple[int, int, int] = setting((20, 30, 50), "epochs of each stage; 0 leaves a stage out")
    max_steps_per_stage: int = setting(0, "end each stage after this many steps; 0: no limit")
    batch_size: int = setting(128, "pairs of image and report in a step, over all processes")
    optimizer: Literal["adam", "adamw"] = setting(
        "adam", "adam, or adamw, which decays weights apart from the gradient"
    )
    learning_rate: tuple[float, float, float] = setting(
        (1e-5, 1e-5, 1e-5), "learning rate of each stage, after its warm-up"
    )
    text_learning_rate: float = setting(1.0, "learning rate of the text encoder, as a factor of learning_rate")
    learning_rate_start: tuple[float, float, float] = setting(
        (1e-7, 1e-7, 1e-8), "learning rate of each stage at the start of its warm-up"
    )
    warmup_epochs: tuple[float, float, float] = setting(
        (1.0, 1.0, 5.0), "epochs of each stage in which the learning rate rises"
    )
    weight_decay: float = setting(1e-6, "weight decay of the optimizer")
    clip_norm: float = setting(1.0, "the gradient's norm is cut to this; 0: no clipping")
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "precision of a step; auto: bf16 where the hardware has it, fp32 elsewhere"
    )
    compile: Literal["auto", "on", "off"] = setting("auto", "whether torch.compile compiles the step; auto: on GPUs")
    cuda_graphs: Literal["auto", "on", "off"] = setting(
        "auto", "whether parts of a compiled step are recorded as CUDA graphs; auto: on a single GPU"
    )
    optimizer_kernel: Literal["auto", "torch", "triton"] = setting(
        "auto",
        "what clips and updates: torch, or kernels that also write the narrow weights of the next step's "
        "products; auto: triton on GPUs",
    )
    cudnn_benchmark: bool = setting(
        True, "on GPUs, whether cuDNN times its algorithms for each convolution and uses the fastest"
    )
    upsampled_conv: Literal["cudnn", "triton", "auto"] = setting(
        "cudnn",
        "what computes the image decoder's x2 convolutions in compiled steps on a GPU; auto: the faster of each layer",
    )
    sync_batch_norm: bool = setting(
        True, "with several processes, use statistics of the joined batch, like a single process"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", DEVICE)
    processes: int = setting(
        0,
        "on a CPU, processes that share a batch; 0: one for each thread that torch would use, as far as they can "
        "share the batch evenly, at most 4; one process with fewer than 4 threads",
    )
    seed: int = setting(0, "seed of the weights, the batches and the noise")
    log_every: int = setting(10, "steps between lines of the log")
    checkpoint_every: int = setting(
        0, "steps between checkpoints; 0: by time alone; the end of a stage and a signal write one too"
    )
    checkpoint_minutes: float = setting(
        10.0, "minutes between checkpoints, of which the first comes after one; 0: by steps alone"
    )
    keep_checkpoints: int = setting(3, "number of newest checkpoints that are kept")
    profile: bool = setting(
        False,
        "whether a trace of a few steps of each stage and a table of its largest costs are written to OUT/profile",
    )
