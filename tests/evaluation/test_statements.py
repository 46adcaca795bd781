"""What a sentence says, by its words."""

import pytest

from prior_fast.evaluation.statements import (
    FINDINGS,
    named_finding,
    read_statement,
    side_of,
    sides_of_finding,
    stated_findings,
    swap_sides,
)


@pytest.mark.parametrize(
    "sentence, findings",
    [
        ("Small right pleural effusion.", {"Pleural Effusion": "stated"}),
        ("The HEART is enlarged.", {"Cardiomegaly": "stated"}),
        ("Severe enlargement of the cardiac silhouette is seen.", {"Cardiomegaly": "stated"}),
        ("The cardiac silhouette is not enlarged.", {"Cardiomegaly": "denied"}),
        ("Heart size is normal.", {"Cardiomegaly": "denied"}),
        ("Normal heart size, small effusion.", {"Cardiomegaly": "denied", "Pleural Effusion": "stated"}),
        ("Heart size is stable.", {}),
        ("No pleural effusion or pneumothorax.", {"Pleural Effusion": "denied", "Pneumothorax": "denied"}),
        ("No pneumothorax, but a small effusion.", {"Pleural Effusion": "stated", "Pneumothorax": "denied"}),
        ("Small effusion without pneumothorax.", {"Pleural Effusion": "stated", "Pneumothorax": "denied"}),
        ("No change in the moderate effusion.", {"Pleural Effusion": "stated"}),
        ("The effusion is not significantly changed.", {"Pleural Effusion": "stated"}),
        ("A pneumothorax is not seen.", {"Pneumothorax": "denied"}),
        ("The edema has resolved.", {"Edema": "denied"}),
        ("A small effusion cannot be excluded.", {"Pleural Effusion": "possible"}),
        ("The heart may be mildly enlarged.", {"Cardiomegaly": "possible"}),
        ("Mild interstitial edema is suspected.", {"Edema": "possible"}),
        ("Consolidation in the left lung, which may represent pneumonia.", {"Consolidation": "stated"}),
        ("Consolidation is seen, no edema; no consolidation here.", {"Consolidation": "stated", "Edema": "denied"}),
        ("Bibasilar atelectatic changes.", {"Atelectasis": "stated"}),
        ("The bones are intact.", {}),
        ("", {}),
    ],
)
def test_findings_and_presence(sentence: str, findings: dict[str, str]) -> None:
    assert dict(read_statement(sentence).findings) == findings


@pytest.mark.parametrize(
    "sentence, side",
    [
        ("Small right-sided effusion.", "right"),
        ("Opacity in the lingula of the Left lung.", "left"),
        ("Effusions on the right and left.", "bilateral"),
        ("Bibasilar atelectasis.", "bilateral"),
        ("Both costophrenic angles are blunted.", "bilateral"),
        ("Upright view.", "none"),
    ],
)
def test_side(sentence: str, side: str) -> None:
    assert side_of(sentence) == side


def test_a_statement_as_labels() -> None:
    several = read_statement("No edema, but a left effusion.")
    assert (several.named, several.presence, several.side) == ("Edema, Pleural Effusion", "denied, stated", "left")
    assert several.stated == {"Pleural Effusion"}
    assert several.asserts("Pleural Effusion") and not several.asserts("Edema") and not several.asserts("Pneumothorax")
    nothing = read_statement("The trachea is midline.")
    assert (nothing.named, nothing.presence, nothing.side, nothing.stated) == ("other", "none", "none", frozenset())


def test_a_possible_finding_is_asserted_but_not_stated() -> None:
    possible = read_statement("Possible mild edema.")
    assert possible.asserts("Edema") and possible.stated == frozenset()
    assert stated_findings(["Possible mild edema.", "No effusion.", "Cardiomegaly."]) == {"Cardiomegaly"}
    assert stated_findings([]) == frozenset()


def test_every_finding_is_named_by_its_own_name() -> None:
    assert [named_finding(f"{name} is observed.") for name in FINDINGS] == list(FINDINGS)


def test_sides_are_swapped_back_and_forth() -> None:
    sentence = "Right effusion; the left-sided tube. Upright, bright."
    assert swap_sides(sentence) == "Left effusion; the right-sided tube. Upright, bright."
    assert swap_sides(swap_sides(sentence)) == sentence


def test_sides_of_a_finding_are_those_of_its_own_sentences() -> None:
    report = ["Right effusion.", "Left pneumothorax.", "No left effusion.", "A moderate effusion is seen."]
    assert sides_of_finding(report, "Pleural Effusion") == {"right"}
    assert sides_of_finding(report, "Edema") == set()


def test_a_long_sentence_says_what_its_pieces_say() -> None:
    filler = "the trachea is midline and the bones are intact "
    long = f"No effusion, {filler * 30}. Left edema {filler * 30} possible pneumothorax"
    assert dict(read_statement(long).findings) == {
        "Edema": "stated",
        "Pleural Effusion": "denied",
        "Pneumothorax": "possible",
    }
    assert read_statement(long).side == "left"
    assert read_statement("x" * 5000 + "edema").named == "Edema"
