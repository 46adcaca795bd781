"""Writing files so that a reader finds a complete file or none, also after a power cut."""

from prior_fast.files.atomic import (
    atomic_directory,
    atomic_path,
    recover,
    remove_folder,
    sha256,
    write_json,
    write_text,
)

__all__ = ["atomic_directory", "atomic_path", "recover", "remove_folder", "sha256", "write_json", "write_text"]
