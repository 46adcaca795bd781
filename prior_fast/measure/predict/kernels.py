"""The part of a step that a kernel on a GPU belongs to, told by its name."""

from prior_fast.measure.predict.parts import (
    ATTENTION,
    CONVOLUTIONS,
    LAYER_NORMS,
    NORMS,
    OPTIMIZER,
    OWN,
    PRODUCTS,
    REST,
)

# Words in a kernel's name; the first match counts. torch.compile names kernels after their ops.
WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (ATTENTION, ("flash",)),
    (CONVOLUTIONS, ("fprop", "dgrad", "wgrad", "xmma", "implicit", "convolve", "cudnn")),
    (NORMS, ("batch_norm", "max_pool", "threshold")),
    (LAYER_NORMS, ("layer_norm", "dropout", "gelu")),
    (PRODUCTS, ("nvjet", "gemm", "cublas", "gemv", "splitk")),
    (OPTIMIZER, ("multi_tensor", "adam", "lpnorm")),
)
# Kernels of this package that take the place of torch's.
OWN_PARTS = {
    "_packed_attention": ATTENTION,
    "_dropout_add_layer_norm": LAYER_NORMS,
    "_column_sums": LAYER_NORMS,
    "_adam": OPTIMIZER,
    "_square_sums": OPTIMIZER,
    "_clip_factor": OPTIMIZER,
}


def part_of_kernel(kernel: str) -> str:
    """The part of a kernel."""
    name = kernel.lower()
    # Triton kernels of this package are private functions, whose names begin with "_"; "_Z" begins a mangled C++ name.
    if (name.startswith("_") and not name.startswith("_z")) or "prior_fast" in name:
        return next((part for start, part in OWN_PARTS.items() if name.startswith(start)), OWN)
    return next((part for part, words in WORDS if any(word in name for word in words)), REST)
