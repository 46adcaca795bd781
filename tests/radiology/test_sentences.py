import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prior_fast.radiology.sections import findings_and_impression
from prior_fast.radiology.sentences import split_sentences

TABLE = [
    ("", []),
    (" \n ", []),
    ("No effusion. Heart is normal.", ["No effusion.", "Heart is normal."]),
    ("No effusion.\n Heart\n is   normal", ["No effusion.", "Heart is normal"]),
    ("No effusion. heart is normal.", ["No effusion.", "heart is normal."]),
    ("A 1.5 cm nodule. Next.", ["A 1.5 cm nodule.", "Next."]),
    ("It measures 1.5 cm. No change.", ["It measures 1.5 cm.", "No change."]),
    ("A 5 mm. nodule. No change.", ["A 5 mm. nodule.", "No change."]),
    ("Dr. ___ was told. Mr. Smith too.", ["Dr. ___ was told.", "Mr. Smith too."]),
    ("Seen by Dr. J. R. Smith. Normal.", ["Seen by Dr. J. R. Smith.", "Normal."]),
    ("Discussed with Dr. ___. No change.", ["Discussed with Dr. ___.", "No change."]),
    ("Edema vs. pneumonia. Clear.", ["Edema vs. pneumonia.", "Clear."]),
    ("Devices, e.g. a line, i.e. a port, are seen.", ["Devices, e.g. a line, i.e. a port, are seen."]),
    ("It ends approx. 3 cm above. Fine.", ["It ends approx. 3 cm above.", "Fine."]),
    ("Told at 3:15 p.m. by phone.", ["Told at 3:15 p.m. by phone."]),
    ("Told at 9 a.m. ___ minutes later.", ["Told at 9 a.m. ___ minutes later."]),
    ("Told at 3:15 p.m. No effusion.", ["Told at 3:15 p.m.", "No effusion."]),
    ("St. Jude valve. Clear.", ["St. Jude valve.", "Clear."]),
    ("Compared to Jan. 5. No change since Dec. Stable.", ["Compared to Jan. 5.", "No change since Dec.", "Stable."]),
    ("1. Cardiomegaly. 2. No effusion.", ["Cardiomegaly.", "No effusion."]),
    (
        "\n 1. Cardiomegaly\n 2. No effusion,\n clear lungs\n 3. Line\n",
        ["Cardiomegaly", "No effusion, clear lungs", "Line"],
    ),
    ("1) Cardiomegaly. 2) No effusion.", ["Cardiomegaly.", "No effusion."]),
    ("There are\n 2. No effusion.", ["There are 2.", "No effusion."]),
    ("Compared to ___ 2012. No change.", ["Compared to ___ 2012.", "No change."]),
    ("___. The ___ is clear ___.", ["The ___ is clear ___."]),
    ("No acute process. .", ["No acute process."]),
    ("Opacity... may be old. Stable... Fine.", ["Opacity... may be old.", "Stable...", "Fine."]),
    ("Is it new? Yes! Stable.", ["Is it new?", "Yes!", "Stable."]),
    ("Opacity ? pneumonia. Clear.", ["Opacity ? pneumonia.", "Clear."]),
    ("Clear (no change.) Heart normal.", ["Clear (no change.)", "Heart normal."]),
    ("No effusion.Heart is normal.", ["No effusion.", "Heart is normal."]),
    ("History of hepatitis C. No effusion.", ["History of hepatitis C.", "No effusion."]),
    ("Fracture of T12. Stable.", ["Fracture of T12.", "Stable."]),
    ("- Heart normal\n- Lungs clear,\n  no effusion", ["Heart normal", "Lungs clear, no effusion"]),
    ("Seen:\n • Nodule.\n • Line.", ["Seen:", "Nodule.", "Line."]),
    ("A nodule\n- not seen before - is new.", ["A nodule - not seen before - is new."]),
]

SPANISH = [
    ("Visto por la Dra. Pérez. Normal.", ["Visto por la Dra. Pérez.", "Normal."]),
    ("Comentado con el Dr. ___ y la Sra. Gil. Fin.", ["Comentado con el Dr. ___ y la Sra. Gil.", "Fin."]),
    ("Mide aprox. 3 cm. Sin derrame.", ["Mide aprox. 3 cm.", "Sin derrame."]),
    ("Mide 3 cm aprox. Sin derrame.", ["Mide 3 cm aprox.", "Sin derrame."]),
    ("Material, p. ej. una vía, p.ej. un tubo. Fin.", ["Material, p. ej. una vía, p.ej. un tubo.", "Fin."]),
    ("Costilla nº. 5 fracturada. Fin.", ["Costilla nº. 5 fracturada.", "Fin."]),
    ("Nódulo en lóbulo sup. izq. de 5 mm. Fin.", ["Nódulo en lóbulo sup. izq. de 5 mm.", "Fin."]),
    ("Seno dcho. libre. Seno izq. Normal.", ["Seno dcho. libre.", "Seno izq.", "Normal."]),
    ("Nódulo de 5 cm. en la base. Fin.", ["Nódulo de 5 cm. en la base.", "Fin."]),
    ("Nódulo de 0,5 cm. Sin cambios.", ["Nódulo de 0,5 cm.", "Sin cambios."]),
    ("¿Neumonía? Control. ¡Urgente! Fin.", ["¿Neumonía?", "Control.", "¡Urgente!", "Fin."]),
    ("Opacidad ¿neumonía? basal. Fin.", ["Opacidad ¿neumonía? basal.", "Fin."]),
    ("Opacidad (¿neumonía?) basal. Fin.", ["Opacidad (¿neumonía?) basal.", "Fin."]),
    ("¿neumonía ? Control.", ["¿neumonía ?", "Control."]),
    ("¿neumonía? ¿derrame? valorar.", ["¿neumonía?", "¿derrame?", "valorar."]),
    ("El pulmón.Índice normal.", ["El pulmón.", "Índice normal."]),
    ("1.- Cardiomegalia. 2.- Derrame.", ["Cardiomegalia.", "Derrame."]),
    ("1.-Cardiomegalia\n2.-Derrame", ["Cardiomegalia", "Derrame"]),
    # PadChest's reports: stemmed words, a period between blanks.
    (
        "cambi pulmon cronic sever . sign fibrosis bibasal . nodul 5 mm . sin derram .",
        ["cambi pulmon cronic sever .", "sign fibrosis bibasal .", "nodul 5 mm .", "sin derram ."],
    ),
    (" . . sin derram . . lob izq . normal .", ["sin derram .", "lob izq .", "normal ."]),
]


@pytest.mark.parametrize(
    ("text", "sentences"), TABLE + SPANISH, ids=[text.strip()[:30] or "blank" for text, _ in TABLE + SPANISH]
)
def test_table(text, sentences):
    assert split_sentences(text) == sentences


WORDS = st.sampled_from(
    [
        *(
            "Heart",
            "normal",
            "No",
            "effusion",
            "1.5",
            "cm",
            "mm.",
            "Dr.",
            "___",
            "___.",
            "2.",
            "1)",
            "p.m.",
            "vs.",
            "J.",
        ),
        *("clear.", "size!", "?", "...", ".", "Mild.)", "e.g.", "\n", "\n 1. ", "normal.The", "a.", "Jan."),
        *("izq.", "aprox.", "p.", "ej.", "Dra.", "nº.", "1.-", "\n- ", "¿qué", "(¿es?)", "mm .", "pulmón.Índice", "¡"),
    ]
)


@given(st.one_of(st.lists(WORDS).map(" ".join), st.text()))
def test_no_letter_is_lost_and_every_sentence_is_clean(text):
    sentences = split_sentences(text)
    assert [c for sentence in sentences for c in sentence if c.isalpha()] == [c for c in text if c.isalpha()]
    for sentence in sentences:
        assert sentence == " ".join(sentence.split())
        assert any(character.isalpha() for character in sentence)


@given(st.lists(WORDS.filter(lambda word: "\n" not in word)).map(" ".join))
def test_only_numbers_and_pieces_without_a_letter_are_dropped(text):
    kept = iter("".join(text.split()))
    assert all(character in kept for sentence in split_sentences(text) for character in sentence if character != " ")


def test_real_reports_have_the_recorded_counts(real_cxr):
    expected = json.loads((real_cxr / "expected.json").read_text(encoding="utf-8"))["per_study"]
    assert len(expected) == 160
    for row in expected:
        subject, study = str(row["subject_id"]), f"s{row['study_id']}"
        report = (real_cxr / f"files/p{subject[:2]}/p{subject}/{study}.txt").read_text(encoding="utf-8")
        sections = findings_and_impression(report, study) or {}
        assert sum(len(split_sentences(text)) for text in sections.values()) == row["sentences"], study


@given(st.one_of(st.lists(WORDS).map(" ".join), st.text()))
def test_sentences_are_pieces_of_the_text_in_its_order(text):
    kept = iter(text)
    assert all(character in kept for sentence in split_sentences(text) for character in sentence if character != " ")


def test_a_sentence_of_an_ordinary_report_is_not_split_again(real_cxr):
    for path in sorted(real_cxr.glob("files/*/*/*.txt")):
        for sentence in split_sentences(path.read_text(encoding="utf-8")):
            assert split_sentences(sentence) == [sentence]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("a" + "." * 5000 + "b", ["a" + "." * 5000 + "b"]),
        ("a" + "." * 5000 + " b", ["a" + "." * 5000 + " b"]),
        ("a" + "." * 5000 + " B", ["a" + "." * 5000, "B"]),
        ("Dr. " * 2000 + "B. C", ["Dr. " * 2000 + "B. C"]),
        ("a ? w" + " ? w" * 2000 + ". Fin", ["a ? w" + " ? w" * 2000 + ".", "Fin"]),
        ("a ¿b" + " ? w" * 2000 + "? C", ["a ¿b" + " ? w" * 2000 + "?", "C"]),
        ("e" + "\u0345\u0334" * 5000 + ". B", ["e" + "\u0345\u0334" * 5000 + ".", "B"]),
    ],
    ids=range(7),
)
def test_long_texts_follow_the_same_rules(text, sentences):
    assert split_sentences(text) == sentences
