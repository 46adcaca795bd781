"""The versions of Python, prior-fast and the packages that it depends on."""

import platform
from importlib import metadata

from prior_fast.version import __version__

PACKAGES = ("torch", "torchvision", "transformers", "triton", "numpy", "scipy")
DALI = "nvidia-dali-cuda"


def versions() -> list[tuple[str, str]]:
    """The versions of prior-fast, Python, `PACKAGES` and DALI; "not installed" for a missing package."""
    rows = [("prior-fast", __version__), ("python", platform.python_version())]
    rows += [(name, package_version(name)) for name in PACKAGES]
    dali = sorted({dist.name for dist in metadata.distributions() if (dist.name or "").startswith(DALI)})
    found = ", ".join(f"{name} {package_version(name)}" for name in dali)
    return [*rows, ("DALI", found or f"not installed: pip install {DALI}130 (optional, reads JPEGs on the GPU)")]


def package_version(name: str) -> str:
    """The version of an installed package, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"not installed: pip install {name}"
