"""The source of every field's value: the paper, the authors' released code, or this project.

docs/configuration.md shows `SOURCES` as tables; `prior-fast bench page docs/configuration.md` fills them.
"""

from dataclasses import dataclass
from typing import Literal

# The released code is https://github.com/QtacierP/PRIOR at this commit. The files that are cited, by their names.
COMMIT = "086bf2e"
RELEASED_FILES = {
    "prior.yaml": "configs/pretrain_model/prior.yaml",
    "train_prior.yaml": "configs/experiments/pre_train/train_prior.yaml",
    "base_config.yaml": "configs/base_config.yaml",
    "base_trainer.yaml": "configs/base_trainer.yaml",
    "image_transformation.yaml": "configs/image_transformation.yaml",
    "prior.py": "codes/prior/models/prior.py",
    "resnet.py": "codes/prior/encoders/image/resnet.py",
    "spb.py": "codes/prior/modules/spb.py",
    "sentence_pool.py": "codes/prior/modules/sentence_pool.py",
    "sentence.py": "codes/prior/decoders/sentence.py",
    "image.py": "codes/prior/decoders/image.py",
    "gather.py": "codes/prior/modules/gather.py",
    "local_attention.py": "codes/prior/modules/local_attention.py",
    "language.py": "codes/prior/transoforms/language.py",
    "mimiccxr.py": "codes/prior/data/pretrain/mimiccxr.py",
}


@dataclass(frozen=True)
class Source:
    """Where a value is from.

    Attributes:
        kind: "paper": the paper or its supplement; "released": the released code; "ours": a choice of this project.
        place: paper: a section of the supplement ("2.4"), or "abstract"; released: "FILE:LINE" or "FILE:FIRST-LAST",
            with FILE of `RELEASED_FILES`; ours: empty.
        quote: paper: the words that state the value; several are separated by " ... ".
        note: ours: the reason; otherwise what place and quote do not say.
    """

    kind: Literal["paper", "released", "ours"]
    place: str = ""
    quote: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.kind == "paper":
            return f"supplement {self.place}" if self.place[0].isdigit() else f"paper, {self.place}"
        return f"released code, {self.place}" if self.kind == "released" else "ours"

    @property
    def link(self) -> str:
        """The address of a place in the released code."""
        file, lines = self.place.split(":")
        return f"https://github.com/QtacierP/PRIOR/blob/{COMMIT}/{RELEASED_FILES[file]}#L{lines.replace('-', '-L')}"


@dataclass(frozen=True)
class FieldSource:
    """The sources of a field's values in the presets.

    Attributes:
        paper: of the value in the preset `paper`.
        released, tiny: of the value in that preset if it differs from the one in `paper`.
    """

    paper: Source
    released: Source | None = None
    tiny: Source | None = None

    def of(self, preset: str) -> Source:
        """The source of the field's value in a preset."""
        return {"released": self.released, "tiny": self.tiny}.get(preset) or self.paper


def paper(place: str, quote: str, note: str = "") -> Source:
    """A value that the paper or its supplement states."""
    return Source("paper", place, quote, note)


def released(place: str, note: str = "") -> Source:
    """A value of the released code."""
    return Source("released", place, note=note)


def ours(reason: str) -> Source:
    """A value that this project chose."""
    return Source("ours", note=reason)


_BERT = paper("2.2", "We adopt BioClinicalBERT", "BERT base; used only with `model.text.weights=random`")
_DECODER = paper("2.3", "in the same setting as that of BioClinicalBERT")
_RESNET50 = paper("2.2", "We employ ResNet50")
_SMALL = ours("small, for two CPU cores")
_FEW_STEPS = ours("a short run from random weights")

_LATER = ours(
    "from random weights, a greater weight delays the alignment: global loss of validation after 78 steps 4.17 with 1, "
    "3.87 with 0.3"
)

SOURCES: dict[str, FieldSource] = {
    "preset": FieldSource(ours("the name"), ours("the name"), ours("the name")),
    "model.image.depths": FieldSource(_RESNET50, tiny=_SMALL),
    "model.image.width": FieldSource(_RESNET50, tiny=_SMALL),
    "model.image.shrink": FieldSource(
        ours("1: images are not averaged; only `tiny` needs it"),
        tiny=ours("quarters the pixels, and replaces the fourth stage"),
    ),
    "model.image.pool_heads": FieldSource(released("resnet.py:62", "of the attention pool")),
    "model.image.weights": FieldSource(
        paper(
            "2.2",
            "gets pretrained on ImageNet",
            "torchvision's IMAGENET1K_V1; the torchvision 0.11 of the released code has no other",
        ),
        tiny=ours("no download; its structure has no pretrained weights"),
    ),
    "model.text.weights": FieldSource(
        paper("2.2", "We adopt BioClinicalBERT"), tiny=ours("no download; its structure has no pretrained weights")
    ),
    "model.text.hidden_size": FieldSource(_BERT, tiny=_SMALL),
    "model.text.layers": FieldSource(_BERT, tiny=_SMALL),
    "model.text.heads": FieldSource(_BERT, tiny=_SMALL),
    "model.text.intermediate_size": FieldSource(_BERT, tiny=_SMALL),
    "model.text.dropout": FieldSource(_BERT, tiny=_FEW_STEPS),
    "model.text.attention_dropout": FieldSource(
        paper("2.2", "We adopt BioClinicalBERT", "written to exported weights, but not applied"), tiny=_FEW_STEPS
    ),
    "model.text.hidden_act": FieldSource(_BERT),
    "model.text.layer_norm_eps": FieldSource(_BERT),
    "model.text.positions": FieldSource(_BERT),
    "model.text.token_types": FieldSource(_BERT),
    "model.text.residual": FieldSource(
        ours("what torch's autocast stores; [bfloat16 moves fewer bytes](ops/dropout_add_layer_norm.md)")
    ),
    "model.bank.prototypes": FieldSource(
        released("prior.yaml:35", "the axes of the supplement's figure 2 also end at 512"),
        tiny=_SMALL,
    ),
    "model.bank.init": FieldSource(
        paper("2.3", "initialized with the Standard Gaussian distribution and L1 normalization"),
        released=released("spb.py:15", "no normalization"),
        tiny=ours("in a short run random prototypes hardly move ([below](#the-tiny-preset))"),
    ),
    "model.bank.tau_start": FieldSource(paper("2.3", "decays from 0.9 to 0.01")),
    "model.bank.tau_end": FieldSource(paper("2.3", "decays from 0.9 to 0.01", "not used with `tau_decay=fixed`")),
    "model.bank.tau_decay": FieldSource(
        ours(
            "the supplement (2.3) says only that it decays; the released code also offers linear and exponential "
            "decay, and its experiment has `exp_decay` in its name (train_prior.yaml:57)"
        ),
        released=released("train_prior.yaml:49"),
    ),
    "model.bank.precision": FieldSource(
        ours("`tf32x3` is not measured on a GPU yet ([prototype_lookup](ops/prototype_lookup.md))")
    ),
    "model.sentence_decoder.layers": FieldSource(
        paper("2.3", "a decoder with 6 BERT layers"), released=released("sentence.py:10"), tiny=_SMALL
    ),
    "model.sentence_decoder.heads": FieldSource(_DECODER, tiny=_SMALL),
    "model.sentence_decoder.intermediate_size": FieldSource(_DECODER, tiny=_SMALL),
    "model.sentence_decoder.queries": FieldSource(released("prior.yaml:36", "`num_queries`")),
    "model.sentence_decoder.dropout": FieldSource(_DECODER, tiny=_FEW_STEPS),
    "model.sentence_decoder.causal": FieldSource(
        paper("abstract", "a non-auto-regressive generation paradigm"),
        released=released("sentence.py:11", "`is_decoder` makes transformers' BERT add a causal mask"),
    ),
    "model.sentence_decoder.residual": FieldSource(ours("as in the text encoder")),
    "model.embed_dim": FieldSource(paper("2.2", "an embedding space of dimension 768"), tiny=_SMALL),
    "model.projection": FieldSource(
        paper("2.2", "four independent MLPs", "[their layers](differences.md#the-model) are ours"),
        released=released("prior.py:35-38"),
    ),
    "model.sentence_pool": FieldSource(
        paper("2.2", "via self-attention pooling"),
        released=released("prior.yaml:38", "`avg`"),
        tiny=ours(
            "as in the released code: the supplement's pool starts with the weight on a single token, and the loss "
            "falls later"
        ),
    ),
    "model.report_pool_heads": FieldSource(released("sentence_pool.py:6", "of the pool of sentences to a report")),
    "model.attention": FieldSource(
        paper("4.2", "the effectiveness of the Sigmoid function in cross-modality attention")
    ),
    "model.temperature": FieldSource(
        released("train_prior.yaml:46-47", "of both learned logit scales, which start at 1 / temperature"),
        tiny=ours(
            "with random encoders a higher scale makes the loss follow noise: validation loss after 154 steps 3.9 at "
            "0.07, 3.3 and 3.4 at 0.2, 3.5 at 0.5"
        ),
    ),
    "model.mask_ratio": FieldSource(released("prior.yaml:33", "of the image embedding's channels")),
    "model.decoder_blocks": FieldSource(
        released("image.py:131-136", "five blocks, from 7x7 to 224x224 pixels"),
        tiny=ours("reconstructs 56x56 pixels: the last two blocks took almost half of a stage-3 step"),
    ),
    "model.decoder_width": FieldSource(
        released("image.py:131-136", "each block halves the channels of its input"),
        tiny=ours("with 128 channels the decoder took half of a stage-3 step"),
    ),
    "model.decoder_norm": FieldSource(
        paper("2.3", "followed by a ReLU activation function and a batch normalization layer"),
        released=released("image.py:18-33", "segmentation_models_pytorch's Conv2dReLU normalizes before the ReLU"),
    ),
    "model.layout": FieldSource(
        paper("2.2", "we take the feature map", "a patch is the 2048 channels at one position of the 7x7 map"),
        released=released("resnet.py:94", "a view that mixes positions and channels"),
    ),
    "model.use_attention_alignment": FieldSource(
        ours("the paper has no such term ([below](#attention-alignment))"),
        tiny=ours("fixes the sign and the place of the attention ([below](#attention-alignment))"),
    ),
    "model.attention_bias": FieldSource(
        ours("0: the paper names no bias"),
        tiny=ours("-log 49: the weights of an image's patches add up to about 1, as with a softmax"),
    ),
    "model.use_bank": FieldSource(ours("the paper's model; `false` for [ablations](#ablations) of the bank")),
    "model.use_local_alignment": FieldSource(
        ours("the paper's model; `false` for [ablations](#ablations) of the local alignment")
    ),
    "model.use_reconstruction": FieldSource(
        ours("the paper's model; `false` for [ablations](#ablations) of the conditional reconstruction")
    ),
    "loss.global_alignment": FieldSource(
        released("prior.py:554-557", "10 in stage 3; no factor in stages 1 and 2 (prior.py:428, prior.py:480)"),
        tiny=ours("from random weights, the local terms alone make no progress"),
    ),
    "loss.local_image": FieldSource(released("prior.py:558-561", "no factor in any stage"), tiny=_LATER),
    "loss.local_text": FieldSource(released("prior.py:558-561", "no factor in any stage"), tiny=_LATER),
    "loss.attention_alignment": FieldSource(
        ours("used only with model.use_attention_alignment=true"),
        tiny=ours("after six epochs, precision at 5 was 0.80 with 3 and 0.70 with 10, and the attention was as good"),
    ),
    "loss.prototype": FieldSource(released("prior.yaml:34", "`lambda_proto`")),
    "loss.image_reconstruction": FieldSource(released("prior.py:562-565", "no factor")),
    "loss.prototype_generation": FieldSource(released("prior.py:323", "`lambda_proto`")),
    "loss.prototype_kl": FieldSource(released("prior.py:323", "no factor")),
    "loss.report_generation": FieldSource(released("prior.py:254-255", "no factor")),
    "data.max_tokens": FieldSource(paper("2.1", "the same length of 256 tokens")),
    "data.shuffle_sentences": FieldSource(released("mimiccxr.py:80", "a new order in each epoch")),
    "data.partial_reports": FieldSource(
        ours("all reports are used whole"),
        tiny=ours("stage 1 learns faster from whole reports; stage 3 reconstructs them"),
    ),
    "data.rotation": FieldSource(
        released("image_transformation.yaml:10-12", "degrees; the supplement has none"),
        tiny=ours("made-up patients are turned already"),
    ),
    "data.interpolation": FieldSource(
        ours("of the rotation; the nearest pixel would move edges by up to half a pixel"),
        released=released("image_transformation.yaml:10-12", "torchvision's default"),
    ),
    "data.flip": FieldSource(
        ours("reports mention left and right"), released=released("train_prior.yaml:42", "half of the images")
    ),
    "data.source": FieldSource(ours("the fastest source; the others serve other storage")),
    "data.images": FieldSource(ours("on the GPU if they fit, else in the host's memory or on disk")),
    "data.jpegs": FieldSource(ours("only for `data.source=dali`")),
    "data.dtype": FieldSource(ours("a step converts images itself where it runs in bfloat16")),
    "data.last": FieldSource(
        ours("all batches of a run have one size; the released code's last batch is smaller (prior.py:123)")
    ),
    "data.token_bucket": FieldSource(ours("0: no padding")),
    "data.workers": FieldSource(
        ours("`data.source=memory` uses one thread; the released code has 16 processes (train_prior.yaml:52)"),
        tiny=ours("two CPU cores"),
    ),
    "data.verify": FieldSource(ours("a damaged dataset is found before training")),
    "stage_epochs": FieldSource(
        paper("2.4", "for 20 epochs ... for 30 epochs ... for 50 epochs"),
        released=released("train_prior.yaml:27-29", "`max_epochs` is 150, not the supplement's 100"),
        tiny=ours("minutes on two CPU cores"),
    ),
    "max_steps_per_stage": FieldSource(ours("0: no limit; for tests and trials")),
    "batch_size": FieldSource(
        paper("2.4", "a batch size of 128"),
        released=released("train_prior.yaml:48-54", "98 on each of 6 GPUs"),
        tiny=ours("more steps in an epoch, so that fewer epochs suffice"),
    ),
    "optimizer": FieldSource(paper("2.4", "We use the Adam optimizer"), released=released("train_prior.yaml:31")),
    "learning_rate": FieldSource(
        paper("2.4", "a learning rate of 1e-5"), released=released("train_prior.yaml:17-23"), tiny=_FEW_STEPS
    ),
    "text_learning_rate": FieldSource(
        ours("1: the paper has one learning rate"),
        tiny=ours("the text encoder learns fastest at a quarter of the image encoder's rate"),
    ),
    "learning_rate_start": FieldSource(released("train_prior.yaml:18-24", "where the warm-up begins"), tiny=_FEW_STEPS),
    "warmup_epochs": FieldSource(
        released("train_prior.yaml:32-34", "the supplement has no warm-up"),
        tiny=ours("validation losses fell lower than after a shorter warm-up"),
    ),
    "weight_decay": FieldSource(paper("2.4", "a weight decay of 1e-6")),
    "clip_norm": FieldSource(
        ours("limits the step that a single batch can cause; its effect is not measured"),
        released=released("base_trainer.yaml:1-8", "no clipping"),
    ),
    "precision": FieldSource(
        ours("bfloat16 needs no loss scaling; the released code trains in float16 (train_prior.yaml:56)")
    ),
    "compile": FieldSource(ours("on GPUs, where a long run repays the compilation")),
    "cuda_graphs": FieldSource(ours("on a single GPU, where the host would limit the speed")),
    "optimizer_kernel": FieldSource(ours("auto: on GPUs, where it moves two thirds of the bytes (counted)")),
    "cudnn_benchmark": FieldSource(ours("faster: all images have one size")),
    "upsampled_conv": FieldSource(ours("cuDNN until the kernels are measured on a GPU; `auto` measures each layer")),
    "sync_batch_norm": FieldSource(released("train_prior.yaml:55", "applies to several processes")),
    "device": FieldSource(ours("a GPU if there is one")),
    "processes": FieldSource(
        ours("0: on CPUs with 4 threads or more one for each thread, at most 4; else one process")
    ),
    "seed": FieldSource(ours("any number serves; the released code's is 114514 (base_config.yaml:3)")),
    "log_every": FieldSource(ours("steps between lines of the log")),
    "checkpoint_every": FieldSource(ours("off: by time"), tiny=ours("its stages are short")),
    "checkpoint_minutes": FieldSource(ours("a checkpoint takes seconds, a step much less on a GPU")),
    "keep_checkpoints": FieldSource(ours("limits the disk space")),
    "profile": FieldSource(ours("off: tracing costs time")),
}
