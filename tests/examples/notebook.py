"""Running the notebook. As a script it runs it at its full size and stores the outputs in it:

python -m tests.examples.notebook
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples/own_data.ipynb"


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in `folder`, with the package of this checkout. The notebook gets the outputs."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,  # one output of a cell's prints, however they were sent
        record_timing=False,
    )
    client.execute(env={**os.environ, "PYTHONPATH": paths})
    notebook.metadata["language_info"] = {"name": "python"}  # no version of this machine's Python


if __name__ == "__main__":
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        execute(fresh, Path(empty))
    nbformat.write(fresh, NOTEBOOK)
