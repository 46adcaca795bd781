"""Files that name images or reports."""

from pathlib import Path

import pytest

from prior_fast.errors import UsageError
from prior_fast.evaluation.id_lists import read_ids

ANSWERS = ("Edema", "Cardiomegaly")


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("study_id,class\n7,Cardiomegaly\n3,Edema\n", [("7", 1), ("3", 0)]),
        ("class,other,image_id\nEdema,x,train/a.jpg\n", [("train/a.jpg", 0)]),
        ("subject_id,study_id\n1,7\n2,8\n", [("7", None), ("8", None)]),
        ("7\n\n 8 \n", [("7", None), ("8", None)]),
    ],
)
def test_the_forms_of_a_list(text: str, wanted: list, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text(text)
    assert read_ids("image_ids", str(tmp_path / "ids.csv"), ANSWERS) == wanted


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "can't be read"),
        ("", "names nothing"),
        ("study_id,class\n", "names nothing"),
        ("a,b\n1,2\n", "names no study_id or image_id"),
        ("7\n8\n7\n", "names 7 twice"),
        ("study_id,class\n7,Edma\n", "unknown class 'Edma': did you mean 'Edema'?"),
        ("class,study_id\nEdema\n", "is too short"),
    ],
)
def test_what_is_wrong_with_a_list_is_told(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_ids("report_ids", str(path), ANSWERS)
    assert message in str(error.value) and str(error.value).startswith(f"report_ids={path}")
