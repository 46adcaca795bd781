"""Every field of the config, its type and its default, which is its value in the preset `paper`.

`prior_fast.config.sources` has the source of every value.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ImageEncoderConfig:
    """A torchvision bottleneck ResNet with one input channel, and attention pooling."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64  # channels of the stem; stage i, counted from 0, has 2 ** (i + 2) times as many
    shrink: int = 1  # images are first averaged over squares of this side; each factor 2 needs one stage less in depths
    pool_heads: int = 8
    # "imagenet" (torchvision's IMAGENET1K_V1), "imagenet-v2" (its newer recipe), "random", or a file of a ResNet's
    # tensors (.safetensors, .pt, .pth)
    weights: str = "imagenet"


@dataclass(frozen=True)
class TextEncoderConfig:
    """BERT. The sizes apply only to weights="random"; otherwise the weights determine them."""

    weights: str = "emilyalsentzer/Bio_ClinicalBERT"  # a Hugging Face name or folder, or "random"
    hidden_size: int = 768
    layers: int = 12
    heads: int = 12
    intermediate_size: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1  # not applied: torch's packed attention has no dropout; kept for exported weights
    hidden_act: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    layer_norm_eps: float = 1e-12
    positions: int = 512  # at least data.max_tokens
    token_types: int = 2  # rows of the segment table; only the first is used
    # What precision=bf16 stores between a layer's additions; the sums are float32. Not a part of the weights.
    residual: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class BankConfig:
    """The sentence prototype memory bank."""

    prototypes: int = 512
    # "sentences": clusters of the training sentences, as encoded at the start of stage 2
    init: Literal["gaussian_l1", "gaussian", "sentences"] = "gaussian_l1"
    tau_start: float = 0.9
    tau_end: float = 0.01
    tau_decay: Literal["exponential", "linear", "fixed"] = "exponential"
    # Of float32 products on a GPU: "ieee" lets the fastest backend serve, "tf32x3" asks for the kernels on tensor cores
    precision: Literal["ieee", "tf32x3"] = "ieee"


@dataclass(frozen=True)
class SentenceDecoderConfig:
    """The BERT decoder that generates sentence prototypes from learned queries."""

    layers: int = 6
    heads: int = 12
    intermediate_size: int = 3072
    queries: int = 16
    dropout: float = 0.1
    causal: bool = False
    residual: Literal["float32", "bfloat16"] = "float32"  # as in the text encoder


@dataclass(frozen=True)
class ModelConfig:
    """PRIOR."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    sentence_decoder: SentenceDecoderConfig = field(default_factory=SentenceDecoderConfig)
    embed_dim: int = 768
    projection: Literal["mlp", "linear"] = "mlp"
    sentence_pool: Literal["attention", "mean"] = "attention"
    report_pool_heads: int = 8
    attention: Literal["sigmoid", "softmax"] = "sigmoid"
    temperature: float = 0.01  # logit scales start at 1 / temperature
    mask_ratio: float = 0.5  # share of the image embedding's channels that image reconstruction masks
    decoder_blocks: int = 5  # of the image decoder; each doubles the side of the reconstructed image, from 7 pixels
    decoder_width: int = 0  # channels after its first block; each other block halves them; 0: embed_dim
    decoder_norm: Literal["after_relu", "before_relu"] = "after_relu"
    layout: Literal["patches", "released"] = "patches"
    # Ours: local alignment also trains the attention to choose a sentence's image.
    use_attention_alignment: bool = False
    attention_bias: float = 0.0  # of the attention's logits, at the start
    # For ablations. A part that is turned off keeps its weights, untrained, so that checkpoints have one shape.
    use_bank: bool = True  # false: stages 2 and 3 use the sentences themselves
    use_local_alignment: bool = True  # false: no stage has the local terms
    use_reconstruction: bool = True  # false: stage 3 has the terms of stage 2

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

    global_alignment: tuple[float, float, float] = (1.0, 1.0, 10.0)  # one per stage
    local_image: float = 1.0
    local_text: float = 1.0
    attention_alignment: float = 1.0
    prototype: float = 10.0
    image_reconstruction: float = 1.0
    prototype_generation: float = 10.0
    prototype_kl: float = 1.0
    report_generation: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """How the loader processes the prepared pairs."""

    max_tokens: int = 256
    shuffle_sentences: bool = True
    # One per stage: the share of reports of which only the first sentences are used, one to all of them, after the
    # shuffle. A model that has seen short reports reads a prompt of one sentence better.
    partial_reports: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: float = 5.0  # degrees, at most, to either side
    interpolation: Literal["bilinear", "nearest"] = "bilinear"  # of the rotation
    flip: bool = False  # mirror half of the images left to right
    source: Literal["memory", "dali", "workers"] = "memory"  # where images come from: prior_fast/data/sources
    images: Literal["auto", "disk", "host", "gpu"] = "auto"  # where source=memory keeps them
    jpegs: str = ""  # source=dali: decode the full-size files of this folder, the one given to prepare --images
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the images
    last: Literal["drop", "fill"] = "drop"  # an epoch's incomplete last batch; fill: add the epoch's first studies
    token_bucket: int = 0  # pad the text encoder's tokens to a multiple of this; 0: no padding
    workers: int = 2  # threads or processes that make batches ahead; 0: the training process makes them
    verify: Literal["full", "sizes"] = "full"  # check the dataset's files before training by SHA-256 or only by size


@dataclass(frozen=True)
class RunConfig:
    """A training run."""

    preset: str = "paper"
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    data: DataConfig = field(default_factory=DataConfig)
    stage_epochs: tuple[int, int, int] = (20, 30, 50)
    max_steps_per_stage: int = 0  # 0: no limit
    batch_size: int = 128  # pairs per step, over all ranks
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: tuple[float, float, float] = (1e-5, 1e-5, 1e-5)  # one per stage
    text_learning_rate: float = 1.0  # of the text encoder, as a factor of learning_rate
    learning_rate_start: tuple[float, float, float] = (1e-7, 1e-7, 1e-8)  # of the warm-up
    warmup_epochs: tuple[float, float, float] = (1.0, 1.0, 5.0)
    weight_decay: float = 1e-6
    clip_norm: float = 1.0  # of the gradient; 0 turns clipping off
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the hardware has it, fp32 elsewhere
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on GPUs
    cuda_graphs: Literal["auto", "on", "off"] = "auto"  # for parts of a compiled step; auto: on a single GPU
    # What clips and updates: torch, or one of the project's Triton kernels, which also writes the narrow weights of the
    # next step's products; auto: triton on GPUs
    optimizer_kernel: Literal["auto", "torch", "triton"] = "auto"
    cudnn_benchmark: bool = True  # on GPUs: cuDNN times its algorithms for each convolution and uses the fastest
    # What computes the image decoder's x2 convolutions in compiled steps on a GPU; auto: the faster of each layer
    upsampled_conv: Literal["cudnn", "triton", "auto"] = "cudnn"
    sync_batch_norm: bool = True  # with several processes: use statistics of the joined batch, like a single process
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # On a CPU: processes that share a batch; 0: one for each thread that torch would use, as far as they can share the
    # batch evenly, at most 4; one process with fewer than 4 threads
    processes: int = 0
    seed: int = 0
    log_every: int = 10  # steps
    # A checkpoint is also written at the end of each stage, and when a signal stops the run.
    checkpoint_every: int = 0  # steps; 0: by time alone
    checkpoint_minutes: float = 10.0  # the first one comes after a minute; 0: by steps alone
    keep_checkpoints: int = 3
    profile: bool = False  # write a trace of a few steps of each stage and a table of its largest costs to OUT/profile
