"""Images reconstructed from their embedding and the report (supplement 4.3, figure 4)."""

import numpy as np
import torch

from prior_fast.evaluation.encode import first_image_rows
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import new_figure, save, show_image

KEY, TITLE, FILE = "reconstruction", "Reconstructed images", "reconstruction.png"


def reconstruction_section(inputs: PictureInputs) -> Section:
    """X-rays and their reconstructions by the image decoder, without and with the channel mask."""
    if not inputs.encoder.model.config.use_reconstruction:
        reason = "This model was trained with model.use_reconstruction=false: its image decoder is not trained."
        return Section(KEY, TITLE, absent=reason)
    if inputs.stage < 3:
        reason = f"This checkpoint is from stage {inputs.stage}: the image decoder is trained in stage 3."
        return Section(KEY, TITLE, absent=reason)
    dataset, rng, ratio = inputs.dataset, inputs.rng(2), inputs.encoder.model.config.mask_ratio
    studies = np.sort(rng.choice(len(dataset), min(inputs.config.count, len(dataset)), replace=False))
    rows = first_image_rows(dataset, studies)
    originals = np.asarray(dataset.images[rows]) / 255
    unmasked, masked = reconstruct(inputs, studies)
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
    save(figure, inputs.out / FILE)
    errors = [float(np.abs(images - originals).mean()) for images in (unmasked, masked)]
    text = (
        "The image decoder gets the image's 7x7 embedding and, for each patch, the result of cross-attention over the "
        f"report's prototypes. In training {ratio:.0%} of the embedding's channels are masked."
    )
    caption = (
        f"Mean absolute error over these images, as a share of the range from black to white: {errors[0]:.3f} without "
        f"the mask, {errors[1]:.3f} with it."
    )
    facts = {"mean_absolute_error_unmasked": errors[0], "mean_absolute_error_masked": errors[1]}
    return Section(KEY, TITLE, text, (Picture(FILE, caption),), facts=facts)


@torch.inference_mode()
def reconstruct(inputs: PictureInputs, studies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The studies' first images, reconstructed from all channels and from the unmasked channels.

    Returns:
        Two arrays, float [N, 224, 224] in [0, 1].
    """
    encoder, model = inputs.encoder, inputs.encoder.model
    patches = encoder.images(inputs.dataset.images, first_image_rows(inputs.dataset, studies)).patches
    texts = encoder.texts([inputs.dataset.sentences(int(study)) for study in studies])
    longest = int(texts.cu_sentences.diff().max())
    context = model.local_cross_attention(patches, texts.prototypes, texts.cu_sentences, longest).for_image
    ratio = model.config.mask_ratio
    keep = inputs.rng(3).random((len(studies), patches.shape[-1])) >= ratio
    mask = torch.from_numpy(keep / (1 - ratio)).to(patches)
    unmasked, masked = (model.reconstruct_images(patches, context, factors) for factors in (None, mask))
    checkpoint = encoder.checkpoint
    gray = [
        (x[:, 0] * checkpoint.image_std + checkpoint.image_mean).clamp(0, 1).cpu().numpy() for x in (unmasked, masked)
    ]
    return gray[0], gray[1]
