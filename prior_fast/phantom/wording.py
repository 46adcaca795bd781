"""Sentence templates for drawn findings and devices, chosen by the traits of the finding.

A key lists the traits that a finding must have ("mild", "one-sided", "linear", "upper", ...); "" fits any finding.
Hedged findings use only the keys that name "hedged", and other findings never use these. Fields in braces are filled
from `SYNONYMS` and from the finding; "{a}" becomes "a" or "an".
"""

Templates = dict[str, tuple[str, ...]]

SYNONYMS: dict[str, tuple[str, ...]] = {
    "seen": ("is observed", "is observed", "is seen", "is present", "is noted", "is identified", "is demonstrated"),
    "are_seen": ("are observed", "are seen", "are present", "are noted", "are identified"),
    "consistent": ("consistent with", "compatible with", "in keeping with", "most consistent with"),
}

SEVERITY: dict[str, dict[str, tuple[str, ...]]] = {
    "Pleural Effusion": {
        "mild": ("small", "small", "mild"),
        "moderate": ("moderate", "moderate-sized"),
        "severe": ("large", "large", "severe"),
    },
    "Pneumothorax": {"mild": ("small", "mild"), "moderate": ("moderate", "moderate-sized"), "severe": ("large",)},
    "": {"mild": ("mild",), "moderate": ("moderate",), "severe": ("severe", "severe", "marked")},
}

ZONES: dict[tuple[str, str], tuple[str, ...]] = {
    ("right", "upper"): ("right upper lobe", "right upper lung", "right upper zone"),
    ("right", "mid"): ("right middle lobe", "right mid lung", "right mid zone"),
    ("right", "lower"): ("right lower lobe", "right lower lung", "right lung base"),
    ("left", "upper"): ("left upper lobe", "left upper lung", "left upper zone"),
    ("left", "mid"): ("lingula of the left lung", "left mid lung", "left mid zone"),
    ("left", "lower"): ("left lower lobe", "left lower lung", "left lung base"),
    ("bilateral", "lower"): ("lung bases bilaterally", "bilateral lower lobes", "bases of both lungs"),
}

STATEMENTS: dict[str, Templates] = {
    "Atelectasis": {
        "": (
            "Atelectasis {seen} in the {place}, {severity} in degree.",
            "{severity} atelectasis {seen} in the {place}.",
            "There is {severity} atelectasis in the {place}.",
            "There is {severity} {side} atelectasis.",
            "{severity} {side} atelectasis is observed.",
        ),
        "linear": (
            "{severity} plate-like atelectasis {seen} in the {place}.",
            "Linear opacities in the {place} are {consistent} {severity} subsegmental atelectasis.",
            "Band-like opacities in the {place} represent {severity} atelectasis.",
            "{severity} linear {side} atelectasis is observed.",
        ),
        "lobar": (
            "{severity} atelectasis with partial collapse of the {place} is observed.",
            "Wedge-shaped opacity in the {place} is {consistent} {severity} lobar atelectasis.",
            "There is volume loss in the {place}, {consistent} {severity} atelectasis.",
        ),
        "hedged": (
            "Possible mild atelectasis in the {place}.",
            "Faint opacity in the {place} may represent mild {side} atelectasis.",
            "Mild atelectasis in the {place} is suspected.",
        ),
    },
    "Cardiomegaly": {
        "": (
            "Cardiomegaly is observed, {severity} in degree.",
            "{severity} cardiomegaly {seen}.",
            "There is {severity} cardiomegaly.",
            "{severity} cardiomegaly is observed.",
            "The heart is enlarged, {consistent} {severity} cardiomegaly.",
            "The cardiac silhouette is enlarged to {a} {severity} degree.",
            "Heart size shows {severity} enlargement.",
            "{severity} enlargement of the cardiac silhouette {seen}.",
        ),
        "hedged": (
            "Possible mild cardiomegaly.",
            "The heart may be mildly enlarged.",
            "Borderline heart size, possibly mild cardiomegaly.",
        ),
    },
    "Consolidation": {
        "": (
            "Consolidation {seen} in the {place}, {severity} in extent.",
            "{severity} consolidation {seen} in the {place}.",
            "There is {severity} consolidation in the {place}.",
            "{severity} {side} consolidation is observed.",
            "There is {a} {severity} focal consolidation in the {place}.",
            "Confluent airspace opacity in the {place} is {consistent} {severity} consolidation.",
            "Patchy dense opacity in the {place} represents {severity} consolidation.",
            "Airspace consolidation {seen} in the {place}, {severity} in extent.",
        ),
        "hedged": (
            "Possible mild consolidation in the {place}.",
            "Faint opacity in the {place} may represent mild {side} consolidation.",
            "Early consolidation in the {place} is suspected.",
        ),
    },
    "Edema": {
        "": (
            "Edema is observed, {severity} in degree.",
            "{severity} pulmonary edema {seen}.",
            "There is {severity} pulmonary edema.",
            "{severity} bilateral pulmonary edema is observed.",
            "Bilateral perihilar haze is {consistent} {severity} pulmonary edema.",
            "{severity} interstitial and alveolar edema {seen} in both lungs.",
            "Perihilar opacities in a bat-wing distribution are {consistent} {severity} edema.",
            "Pulmonary edema {seen} in both lungs, {severity} in degree.",
        ),
        "hedged": (
            "Possible mild pulmonary edema.",
            "Faint perihilar haze may represent mild edema.",
            "Mild interstitial edema is suspected.",
        ),
    },
    "Pleural Effusion": {
        "one-sided": (
            "There is {a} {severity} {side} pleural effusion.",
            "{side}-sided pleural effusion is observed, {severity} in size.",
            "Pleural effusion is observed on the {side}, {severity} in size.",
            "{a} {severity} {side} pleural effusion {seen}.",
            "{severity} {side} pleural effusion is observed.",
            "{severity} effusion {seen} in the {side} pleural space.",
        ),
        "one-sided mild": (
            "Blunting of the {side} costophrenic angle is {consistent} a small effusion.",
            "The {side} costophrenic angle is blunted by a small pleural effusion.",
        ),
        "one-sided moderate": ("Fluid obscures the {side} base, {consistent} a moderate pleural effusion.",),
        "one-sided severe": ("Opacification of most of the {side} hemithorax reflects a large pleural effusion.",),
        "bilateral": (
            "There are {severity} bilateral pleural effusions.",
            "{severity} bilateral pleural effusions {are_seen}.",
            "Pleural effusion is observed bilaterally, {severity} in size.",
            "Pleural effusions {are_seen} on both sides, {severity} in size.",
            "Bilateral {severity} pleural effusion is observed.",
        ),
        "bilateral mild": ("Both costophrenic angles are blunted, {consistent} small pleural effusions.",),
        "hedged one-sided": (
            "Possible small {side} pleural effusion.",
            "Slight blunting of the {side} costophrenic angle may represent a small pleural effusion.",
            "A small {side} pleural effusion is suspected.",
        ),
        "hedged bilateral": (
            "Possible small bilateral pleural effusions.",
            "Slight blunting of both costophrenic angles may represent small pleural effusions.",
        ),
    },
    "Pneumothorax": {
        "": (
            "There is {a} {severity} {side} pneumothorax.",
            "{side}-sided pneumothorax is observed, {severity} in size.",
            "Pneumothorax is observed on the {side}, {severity} in size.",
            "{a} {severity} {side} pneumothorax {seen}.",
            "{severity} {side} pneumothorax is observed.",
            "A visceral pleural line is {consistent} {a} {severity} {side} pneumothorax.",
        ),
        "mild": ("{a} {severity} {side} apical pneumothorax {seen}.",),
        "hedged": (
            "Possible small {side} apical pneumothorax.",
            "A small {side} pneumothorax is suspected.",
            "A faint line at the {side} apex may represent a small pneumothorax.",
        ),
    },
}

DETAILS: dict[str, Templates] = {
    "Atelectasis": {
        "linear": ("The bands run nearly horizontally across the {place}.", "These opacities are thin and linear."),
        "lobar": (
            "The adjacent fissure is displaced, indicating volume loss.",
            "The border of the wedge along the fissure is sharp.",
        ),
        "lower lobar": ("The {side} hemidiaphragm is slightly elevated.",),
    },
    "Cardiomegaly": {
        "mild": ("The cardiothoracic ratio is approximately 0.56.",),
        "moderate": ("The cardiothoracic ratio is approximately 0.62.", "The cardiothoracic ratio exceeds 0.5."),
        "severe": ("The cardiothoracic ratio is approximately 0.69.", "The left heart border nears the chest wall."),
    },
    "Consolidation": {
        "": (
            "Air bronchograms are seen within the opacity.",
            "The margins of the opacity are ill-defined.",
            "The opacity is confluent and obscures the vessels.",
        ),
    },
    "Edema": {
        "": (
            "The pulmonary vessels are engorged and indistinct.",
            "Septal lines are seen at the periphery of both lungs.",
            "The haze is most pronounced around the hila.",
            "Interstitial markings are increased bilaterally.",
        ),
    },
    "Pleural Effusion": {
        "": ("Fluid climbs the lateral chest wall with a meniscus.",),
        "one-sided": ("The {side} costophrenic angle is obscured.",),
        "bilateral": ("Both costophrenic angles are obscured.",),
        "one-sided moderate": ("The {side} hemidiaphragm is no longer visible.",),
        "one-sided severe": ("The {side} hemidiaphragm is no longer visible.", "Little aerated {side} lung remains."),
    },
    "Pneumothorax": {
        "": (
            "No lung markings are seen beyond the {side} pleural line.",
            "The {side} apical pleural space is lucent.",
        ),
        "mild": ("The pleural line lies approximately 2.5 cm from the chest wall.",),
        "moderate": ("The pleural line lies approximately 4.1 cm from the chest wall.",),
        "severe": ("The {side} lung edge is widely displaced from the chest wall.",),
    },
}

IMPRESSIONS: dict[str, Templates] = {
    "Atelectasis": {
        "": ("{severity} atelectasis in the {place}.", "{severity} {side} atelectasis."),
        "linear": ("{severity} plate-like {side} atelectasis.", "{severity} subsegmental atelectasis in the {place}."),
        "lobar": ("{severity} lobar atelectasis in the {place}.",),
    },
    "Cardiomegaly": {"": ("{severity} cardiomegaly.", "Cardiomegaly, {severity} in degree.")},
    "Consolidation": {
        "": (
            "{severity} consolidation in the {place}.",
            "{severity} {side} consolidation.",
            "{severity} consolidation in the {place}, which may represent pneumonia.",
        )
    },
    "Edema": {"": ("{severity} pulmonary edema.", "Findings {consistent} {severity} pulmonary edema.")},
    "Pleural Effusion": {
        "one-sided": ("{severity} {side} pleural effusion.", "{side} pleural effusion, {severity} in size."),
        "bilateral": ("{severity} bilateral pleural effusions.", "Bilateral pleural effusions, {severity} in size."),
    },
    "Pneumothorax": {"": ("{severity} {side} pneumothorax.", "{side} pneumothorax, {severity} in size.")},
}

DEVICES: dict[str, tuple[str, ...]] = {
    "pacemaker": (
        "A left-sided pacemaker is in place with leads in the right atrium and right ventricle.",
        "Left chest wall pacemaker with two leads is noted.",
        "Dual-lead pacemaker projects over the left chest.",
    ),
    "central line": (
        "A right internal jugular central venous catheter ends in the SVC.",
        "The tip of a right central line projects over the SVC.",
        "Right IJ line is in place with its tip in the superior vena cava.",
    ),
    "endotracheal tube": (
        "The endotracheal tube ends above the carina.",
        "An endotracheal tube is in standard position.",
        "The patient is intubated with the ET tube tip above the carina.",
    ),
    "enteric tube": (
        "An enteric tube courses below the left hemidiaphragm.",
        "The nasogastric tube ends in the stomach.",
        "Enteric tube is in place with its tip in the stomach.",
    ),
    "sternal wires": (
        "Median sternotomy wires are intact.",
        "Sternotomy wires are aligned along the midline.",
        "The patient is status post median sternotomy with intact wires.",
    ),
}
