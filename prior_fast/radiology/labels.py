"""The 14 labels of CheXpert, the five of its competition, and the rule for uncertain labels.

A label is 1 (present), 0 (absent), -1 (uncertain) or blank.
"""

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
# classes and as absent for the others. A blank label counts as absent.
UNCERTAIN_IS_POSITIVE = frozenset({"Atelectasis", "Edema", "Pleural Effusion"})
