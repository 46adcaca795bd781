"""Names of studies and classes in pictures, where space is limited."""


def shortened(name: str, width: int) -> str:
    """`name`, or its beginning and "...", in at most `width` characters (4 or more)."""
    return name if len(name) <= width else f"{name[: width - 3]}..."
