"""The version of prior-fast that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("prior-fast")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
