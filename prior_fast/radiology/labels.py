"""The 14 labels of CheXpert, the five of its competition, and the rule for uncertain labels.

A label is 1 (present), 0 (absent), -1 (uncertain) or blank. Datasets may have labels of any other names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# In the order of MIMIC-CXR-JPG's table, which is the order of a prepared dataset's columns.
CHEXPERT_LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
# The same labels in the order of CheXpert's own tables, train.csv and valid.csv.
CHEXPERT_TABLE_LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)
# The labels of CheXpert's competition. They are also the classes of CheXpert 5x200, in the order of the authors' list.
FIVE_CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# All 1,000 rows of the authors' CheXpert 5x200 list follow this rule: an uncertain label counts as present for these
# classes and as absent for the others, so also for labels that are not CheXpert's. A blank label counts as absent.
UNCERTAIN_IS_POSITIVE = frozenset({"Atelectasis", "Edema", "Pleural Effusion"})


def present(labels: "np.ndarray", columns: Sequence[str], classes: Sequence[str]) -> "np.ndarray":
    """Which classes each image or study has, by the rule of `UNCERTAIN_IS_POSITIVE`.

    Args:
        labels: float32 [N, C], 1, 0, -1, or nan where blank.
        columns: the names of the C labels, which need not be CheXpert's.
        classes: names among them; there may be none.

    Returns:
        bool [N, len(classes)].
    """
    import numpy as np

    uncertain = np.array([name in UNCERTAIN_IS_POSITIVE for name in classes], bool)
    values = labels[:, [list(columns).index(name) for name in classes]]
    return (values == 1) | ((values == -1) & uncertain)
