"""PRIOR (ICCV 2023): joint pre-training of chest X-ray and report encoders.

`prior_fast.PRIOR.from_pretrained(path)` is a trained model; `prior_fast.ops` the operations.
"""

from typing import TYPE_CHECKING, Any

from prior_fast.version import __version__ as __version__

if TYPE_CHECKING:
    from prior_fast.api import PRIOR as PRIOR


def __getattr__(name: str) -> Any:
    # The model needs torch and transformers, which take seconds to import.
    if name == "PRIOR":
        from prior_fast.api import PRIOR

        return PRIOR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
