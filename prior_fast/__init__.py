"""PRIOR (ICCV 2023): joint pre-training of chest X-ray and report encoders."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("prior-fast")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
