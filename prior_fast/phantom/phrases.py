"""Sentences that describe no finding: absent findings, normal anatomy, and remarks unrelated to the image."""

from dataclasses import dataclass

LUNG = ("Atelectasis", "Consolidation", "Edema", "Pneumothorax")


@dataclass(frozen=True)
class Absence:
    """A sentence that may be used only if none of the findings in `absent` is drawn.

    denies: the CheXpert labels that it sets to 0.
    impression: whether it may also be used in an impression.
    """

    text: str
    absent: tuple[str, ...]
    denies: tuple[str, ...] = ()
    impression: bool = False


def _denial(text: str, *denies: str, impression: bool = True) -> Absence:
    return Absence(text, denies, denies, impression)


ABSENCES = (
    _denial("No pneumothorax.", "Pneumothorax"),
    _denial("There is no pneumothorax.", "Pneumothorax"),
    _denial("No evidence of pneumothorax.", "Pneumothorax"),
    _denial("No pleural effusion.", "Pleural Effusion"),
    _denial("There is no pleural effusion.", "Pleural Effusion"),
    _denial("No pleural effusion or pneumothorax is seen.", "Pleural Effusion", "Pneumothorax"),
    _denial("There is no pleural effusion or pneumothorax.", "Pleural Effusion", "Pneumothorax"),
    _denial("No large effusion or pneumothorax is identified.", "Pleural Effusion", "Pneumothorax"),
    _denial("No focal consolidation.", "Consolidation"),
    _denial("There is no focal consolidation.", "Consolidation"),
    _denial("No consolidation or edema.", "Consolidation", "Edema"),
    _denial(
        "No focal consolidation, pleural effusion, or pneumothorax.",
        "Consolidation",
        "Pleural Effusion",
        "Pneumothorax",
    ),
    _denial("No pulmonary edema.", "Edema"),
    _denial("There is no pulmonary edema.", "Edema"),
    _denial("No evidence of pulmonary edema or pleural effusion.", "Edema", "Pleural Effusion"),
    _denial("No atelectasis.", "Atelectasis"),
    _denial("There is no atelectasis or focal consolidation.", "Atelectasis", "Consolidation"),
    _denial("No cardiomegaly.", "Cardiomegaly"),
    _denial("The heart is normal in size.", "Cardiomegaly", impression=False),
    _denial("Heart size is normal.", "Cardiomegaly", impression=False),
    _denial("The cardiac silhouette is not enlarged.", "Cardiomegaly", impression=False),
    Absence(
        "The cardiomediastinal silhouette is within normal limits.",
        ("Cardiomegaly",),
        ("Cardiomegaly", "Enlarged Cardiomediastinum"),
    ),
    Absence(
        "The cardiomediastinal contours are normal.", ("Cardiomegaly",), ("Cardiomegaly", "Enlarged Cardiomediastinum")
    ),
    Absence("No evidence of pneumonia.", ("Consolidation", "Edema", "Atelectasis"), ("Pneumonia",), True),
    Absence("The lungs are clear.", LUNG, ("Lung Opacity",)),
    Absence("Both lungs are clear.", LUNG, ("Lung Opacity",)),
    Absence("The lungs are well expanded and clear.", (*LUNG, "Pleural Effusion"), ("Lung Opacity",)),
    Absence("The costophrenic angles are sharp.", ("Pleural Effusion",)),
    Absence("The pulmonary vasculature is normal.", ("Edema",)),
    Absence("The hilar contours are normal.", ("Edema", "Cardiomegaly", "Atelectasis")),
    Absence("Lung volumes are normal.", ("Atelectasis", "Pneumothorax", "Pleural Effusion")),
)

NORMAL_IMPRESSIONS = (
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "No acute intrathoracic process.",
    "No radiographic evidence of acute cardiopulmonary disease.",
    "Normal chest radiograph.",
)

CLEAR_SIDE = ("The {side} lung is clear.", "The {side} lung is well aerated.")

ANATOMY = (
    Absence("The trachea is midline.", ()),
    Absence("No acute osseous abnormality.", (), ("Fracture",)),
    Absence("No acute fracture is seen.", (), ("Fracture",)),
    Absence("The bony structures are intact.", ()),
    Absence("The visualized upper abdomen is unremarkable.", ()),
    Absence("There is no free air below the right hemidiaphragm.", ()),
    Absence("No pulmonary nodule or mass is identified.", (), ("Lung Lesion",)),
    Absence("The aortic knob is unremarkable.", ()),
    Absence("The visualized soft tissues are unremarkable.", ()),
    Absence("The clavicles and ribs are unremarkable.", ()),
)

REMARKS = (
    "Images were stored at ___.",
    "The clinical history was reviewed.",
    "The exam was acquired at 6:45 a.m. on ___.",
    "The detector distance was 1.8 m.",
    "The study was reviewed with the resident.",
    "The estimated dose was 0.02 mSv.",
    "Evaluation follows the standard protocol of ___.",
    "The patient was positioned upright where tolerated.",
)
WITH_PRIOR = (
    "Comparison is made to ___.",
    "Comparison is made to the prior radiograph dated ___.",
    "The prior study of ___ was reviewed.",
)
WITHOUT_PRIOR = ("No prior studies are available for comparison.", "There is no prior radiograph for comparison.")
VIEWS = {
    "AP": ("Portable AP view of the chest was obtained.", "An AP radiograph of the chest was reviewed."),
    "PA": ("A PA view of the chest was obtained.", "Frontal view of the chest was reviewed."),
    "PA AND LAT": ("PA and lateral views of the chest were obtained.", "Frontal and lateral views were reviewed."),
}
NOTICES = (
    "Dr. ___ was notified at 3:15 p.m. by phone.",
    "These findings were discussed with Dr. ___ by telephone at 10:42 a.m. on ___.",
    "Findings were reported to Dr. ___ at the time of discovery.",
)
ADVICE = (
    "Clinical correlation is recommended.",
    "Follow-up radiographs are recommended to document resolution.",
    "A repeat radiograph may be obtained as needed.",
    "Recommend short interval follow-up.",
)

INDICATIONS = (
    "___ year old {person} with shortness of breath.",
    "___ year old {person} with chest pain.",
    "History: ___ {person} with cough and fever.",
    "___ year old {person} with hypoxia, please evaluate.",
    "___-year-old {person}, preoperative evaluation.",
    "Dyspnea.",
    "Chest pain, evaluate for acute process.",
)
TECHNIQUES = {
    "AP": ("Portable AP chest radiograph.", "AP view of the chest."),
    "PA": ("Frontal chest radiograph.", "PA view of the chest."),
    "PA AND LAT": ("Chest PA and lateral", "PA and lateral chest radiographs."),
}
EXAMINATIONS = {"AP": "CHEST (PORTABLE AP)", "PA": "CHEST (SINGLE VIEW)", "PA AND LAT": "CHEST (PA AND LAT)"}
