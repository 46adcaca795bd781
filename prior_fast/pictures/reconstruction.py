"""Images reconstructed from their embedding and the report (supplement 4.3, figure 4)."""

import numpy as np
import torch

from prior_fast.evaluation.encode import first_image_rows
from prior_fast.pictures.config import Material
from prior_fast.pictures.figures import new_figure, save, show_image
from prior_fast.pictures.page import Picture, Section

KEY, TITLE, FILE = "reconstruction", "Reconstructed images", "reconstruction.png"


def reconstruction_section(material: Material) -> Section:
    """X-rays beside what the image decoder makes of them, without and with the channel mask."""
    if material.stage < 3:
        reason = f"This checkpoint stands in stage {material.stage}: the image decoder is trained in stage 3."
        return Section(KEY, TITLE, absent=reason)
    dataset, rng, ratio = material.dataset, material.rng(2), material.encoder.model.config.mask_ratio
    studies = np.sort(rng.choice(len(dataset), min(material.config.count, len(dataset)), replace=False))
    rows = first_image_rows(dataset, studies)
    originals = np.asarray(dataset.images[rows]) / 255
    unmasked, masked = reconstruct(material, studies)
    figure = new_figure(10, 10 * 3 / max(len(rows), 3) + 0.4)
    axes = figure.subplots(3, len(rows), squeeze=False)
    names = (
        "original",
        "reconstructed, no mask",
        f"reconstructed, {ratio:.0%} masked",
    )
    for line, (name, images) in enumerate(zip(names, (originals, unmasked, masked))):
        axes[line, 0].set_ylabel(name)
        for column, image in enumerate(images):
            show_image(axes[line, column], image, f"study {dataset.study_ids[studies[column]]}" if line == 0 else "")
    save(figure, material.out / FILE)
    errors = [float(np.abs(images - originals).mean()) for images in (unmasked, masked)]
    text = (
        "The image decoder sees the image's 7x7 embedding and, for each patch, what it gathers from the report's "
        f"prototypes by cross-attention. In training {ratio:.0%} of the embedding's channels are masked."
    )
    caption = (
        f"Mean absolute error over these images, of the full range from black to white: {errors[0]:.3f} without the "
        f"mask, {errors[1]:.3f} with it."
    )
    facts = {"mean_absolute_error_unmasked": errors[0], "mean_absolute_error_masked": errors[1]}
    return Section(KEY, TITLE, text, (Picture(FILE, caption),), facts=facts)


@torch.inference_mode()
def reconstruct(material: Material, studies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The studies' first images from all channels and from the unmasked ones: float [N, 224, 224] in [0, 1] each."""
    encoder, model = material.encoder, material.encoder.model
    patches = encoder.images(material.dataset.images, first_image_rows(material.dataset, studies)).patches
    texts = encoder.texts([material.dataset.sentences(int(study)) for study in studies])
    longest = int(texts.cu_sentences.diff().max())
    context = model.local_cross_attention(patches, texts.prototypes, texts.cu_sentences, longest).for_image
    ratio = model.config.mask_ratio
    keep = material.rng(3).random((len(studies), patches.shape[-1])) >= ratio
    mask = torch.from_numpy(keep / (1 - ratio)).to(patches)
    unmasked, masked = (model.reconstruct_images(patches, context, factors) for factors in (None, mask))
    checkpoint = encoder.checkpoint
    gray = [
        (x[:, 0] * checkpoint.image_std + checkpoint.image_mean).clamp(0, 1).cpu().numpy() for x in (unmasked, masked)
    ]
    return gray[0], gray[1]
