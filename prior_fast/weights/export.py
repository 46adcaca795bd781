"""Exports a checkpoint's encoders in the formats of other libraries."""

from pathlib import Path

from transformers import BertConfig

from prior_fast.console import busy
from prior_fast.errors import UsageError
from prior_fast.files import atomic_directory, write_json
from prior_fast.files.tensors import save_tensors
from prior_fast.model.pretrained_bert import bert_config
from prior_fast.radiology.tokenizer import save_tokenizer
from prior_fast.training.checkpoint import Checkpoint

RESNET_FILE = "resnet.safetensors"


def export(checkpoint: Checkpoint, out: Path) -> list[str]:
    """Write the folder `out` and return one line about each part.

    `resnet.safetensors`: the image encoder's state dict without a classifier, one input channel, with the names that
    torchvision and timm share (timm: `create_model("resnet50", in_chans=1, num_classes=0)`). `text_encoder/`: a folder
    for transformers' `AutoModel.from_pretrained` and `AutoTokenizer.from_pretrained`. `report.json`: sizes and
    pixel normalization.

    Raises:
        UsageError: `out` exists.
    """
    if out.exists():
        raise UsageError(f"--out {out}: it exists; give another folder")
    with busy(f"reading {checkpoint.path.name}"):
        model = checkpoint.load_model()
    resnet = model.image_encoder.encoder.state_dict()
    bert = model.text_encoder.encoder.state_dict()
    tokenizer = checkpoint.tokenizer()
    config = BertConfig(
        vocab_size=checkpoint.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["BertModel"],
        **bert_config(checkpoint.structure.text),
    )
    with busy(f"writing {out.name}"), atomic_directory(out) as partial:
        save_tensors(partial / RESNET_FILE, resnet)
        config.save_pretrained(partial / "text_encoder")
        # transformers requires the name of the framework.
        save_tensors(partial / "text_encoder" / "model.safetensors", bert, {"format": "pt"})
        save_tokenizer(tokenizer, partial / "text_encoder")
        image = checkpoint.structure.image
        write_json(
            partial / "report.json",
            {
                "checkpoint": str(checkpoint.path),
                "image_encoder": {"depths": image.depths, "width": image.width, "shrink": image.shrink, "channels": 1},
                "pixels": {"mean": checkpoint.image_mean, "std": checkpoint.image_std, "range": [0, 1], "side": 224},
            },
        )
    return [f"{RESNET_FILE}: torchvision's and timm's names, 1 channel", "text_encoder/: for transformers"]
