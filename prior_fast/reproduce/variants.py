"""The models of the tables: PRIOR, and PRIOR without one of its parts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A model of a table.

    Attributes:
        title: its name in a table.
        settings: of `prior-fast train`, on top of the preset.
    """

    title: str
    settings: tuple[str, ...] = ()


PRIOR = "prior"
VARIANTS = {
    PRIOR: Variant("PRIOR"),
    "softmax": Variant("softmax attention", ("model.attention=softmax",)),
    "without-local-alignment": Variant("without local alignment", ("model.use_local_alignment=false",)),
    "without-bank": Variant("without the prototype bank", ("model.use_bank=false",)),
    "without-reconstruction": Variant("without reconstruction", ("model.use_reconstruction=false",)),
}
