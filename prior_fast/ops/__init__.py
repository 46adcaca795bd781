"""The ops of PRIOR, one per file. The package exports each file's `__all__`: call `ops.sigmoid_attention(...)`.

Every op takes `backend=None`, which selects the best backend for its input (see `prior_fast.ops.common.backend`).
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from prior_fast.spelling import nearest

if TYPE_CHECKING:  # for type checkers and editors; at run time `_exports` finds the ops
    from prior_fast.ops.attention_weights import attention_weights as attention_weights
    from prior_fast.ops.dropout_add_layer_norm import dropout_add_layer_norm as dropout_add_layer_norm
    from prior_fast.ops.info_nce import info_nce as info_nce
    from prior_fast.ops.linear_sum_assignment import Assignment as Assignment
    from prior_fast.ops.linear_sum_assignment import linear_sum_assignment as linear_sum_assignment
    from prior_fast.ops.match_prototypes import match_prototypes as match_prototypes
    from prior_fast.ops.packed_attention import packed_attention as packed_attention
    from prior_fast.ops.packed_self_attention import packed_self_attention as packed_self_attention
    from prior_fast.ops.prototype_kl import prototype_kl as prototype_kl
    from prior_fast.ops.prototype_lookup import PrototypeLookup as PrototypeLookup
    from prior_fast.ops.prototype_lookup import prototype_lookup as prototype_lookup
    from prior_fast.ops.rotate_images import rotate_images as rotate_images
    from prior_fast.ops.segment_info_nce import segment_info_nce as segment_info_nce
    from prior_fast.ops.segment_mean import segment_mean as segment_mean
    from prior_fast.ops.segment_softmax_pool import segment_softmax_pool as segment_softmax_pool
    from prior_fast.ops.sigmoid_attention import sigmoid_attention as sigmoid_attention
    from prior_fast.ops.upsampled_conv import upsampled_conv as upsampled_conv


def _exports() -> dict[str, Any]:
    exports: dict[str, Any] = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.ispkg:
            module = importlib.import_module(f"{__name__}.{info.name}")
            exports.update({name: getattr(module, name) for name in module.__all__})
    return exports


# An import binds the submodule's name on the package. A function of the same name must be bound after all imports.
_EXPORTS = _exports()
globals().update(_EXPORTS)
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module {__name__!r} has no op {name!r}{nearest(name, _EXPORTS)}")
