"""The usual names of the parts of a split, in lower case."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev"), "validate"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def is_split(cell: str | None) -> bool:
    """Whether a cell names a part of a split."""
    return cell is not None and cell.strip().lower() in SPLIT_WORDS
