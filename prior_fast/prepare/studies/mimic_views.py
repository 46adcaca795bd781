"""The view of an image of MIMIC-CXR whose ViewPosition is blank, from other columns of its metadata."""

import re

FRONTAL_VIEWS = ("AP", "PA")
# In the order in which they are asked.
VIEW_COLUMNS = (
    "ViewCodeSequence_CodeMeaning",
    "PerformedProcedureStepDescription",
    "ProcedureCodeSequence_CodeMeaning",
)
_WORDS = {"postero-anterior": "PA", "antero-posterior": "AP", "lateral": "LATERAL"}
_AP, _PA, _LATERAL = (re.compile(pattern) for pattern in (r"\bAP\b|\bPORTABLE\b", r"\bPA\b", r"\bLAT(ERAL)?\b"))


def view_of(code: str | None, *procedures: str | None) -> str | None:
    """ "AP", "PA", "LATERAL" or None if the columns do not say it.

    A procedure with several views ("CHEST (PA AND LAT)") does not say which of them an image is.

    Args:
        code: the meaning of the view code, such as "postero-anterior".
        procedures: descriptions of the procedure, such as "CHEST (PORTABLE AP)"; the first that says a view counts.
    """
    known = [view for word, view in _WORDS.items() if word in (code or "").lower()]
    if known:
        return known[0]
    for text in procedures:
        upper = (text or "").upper()
        views = [view for view, pattern in (("AP", _AP), ("PA", _PA), ("LATERAL", _LATERAL)) if pattern.search(upper)]
        if len(views) == 1:
            return views[0]
    return None
