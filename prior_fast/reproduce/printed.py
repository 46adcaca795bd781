"""Numbers of PRIOR that were printed, with their sources.

The supplement prints those of its table 3. The tables of the paper itself were not at hand: the other numbers are from
papers that quote PRIOR or ran it again, and none of them says which.
"""

from dataclasses import dataclass

SUPPLEMENT = "the supplement's table 3"
EGMA_1 = "EGMA (NeurIPS 2024), table 1, quotes PRIOR; titled linear"
EGMA_2 = "EGMA (NeurIPS 2024), table 2, quotes PRIOR"


@dataclass(frozen=True)
class Printed:
    """A printed number.

    Attributes:
        text: as printed, in percent.
        source: where it is printed.
    """

    text: str
    source: str


# By table, variant and column.
PRINTED = {
    ("supplement-3", "softmax", "classification"): Printed("86.01 ± 0.68", SUPPLEMENT),
    ("supplement-3", "softmax", "segmentation"): Printed("45.65 ± 1.31", SUPPLEMENT),
    ("supplement-3", "prior", "classification"): Printed("86.16 ± 0.64", SUPPLEMENT),
    ("supplement-3", "prior", "segmentation"): Printed("46.01 ± 1.03", SUPPLEMENT),
    ("1", "prior", "rsna-1"): Printed("86.72", EGMA_1),
    ("1", "prior", "rsna-10"): Printed("88.07", EGMA_1),
    ("1", "prior", "rsna-100"): Printed("89.19", EGMA_1),
    ("1", "prior", "siim-1"): Printed("88.35", EGMA_1),
    ("1", "prior", "siim-10"): Printed("89.72", EGMA_1),
    ("1", "prior", "siim-100"): Printed("92.49", EGMA_1),
    ("1", "prior", "chexpert-1"): Printed("86.16", EGMA_1),
    ("1", "prior", "chexpert-10"): Printed("87.08", EGMA_1),
    ("1", "prior", "chexpert-100"): Printed("89.08", EGMA_1),
    ("2", "prior", "accuracy"): Printed("34.90", EGMA_2),
    ("2", "prior", "macro_f1"): Printed("30.56", EGMA_2),
}
