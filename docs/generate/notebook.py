"""`python -m docs.generate.notebook`: runs the notebook on the sample and keeps what it shows.

A reader without a machine at hand sees what each cell gives; the parameters in the file stay those of a whole run.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
NOTEBOOK: Final = ROOT / "notebooks" / "train_colab.ipynb"
SMALL: Final = ("evaluate.robustness_images=60",)
"""Settings of the run whose outputs are kept; the notebook's first cell names them."""


def executed(settings: tuple[str, ...] = SMALL) -> Any:
    """The notebook with outputs; its cells are as they were."""
    import nbformat
    from nbclient import NotebookClient

    tool: Any = nbformat  # without types where it is installed
    notebook = tool.read(NOTEBOOK, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    written = parameters.source
    with tempfile.TemporaryDirectory() as workspace:
        parameters.source += f"\nsettings = {[*settings, f'paths.workspace={workspace}']!r}"
        # the environment of the kernel, which starts in the notebook's folder
        os.environ["PYTHONPATH"] = str(ROOT)  # noqa: TID251 - handed on
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    parameters.source = written
    for cell in notebook.cells:
        # when each cell began and ended: of no use to a reader, and other every time
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
            for output in cell.outputs:
                _without_places(output, {workspace: "workspace", str(ROOT): "."})
    return notebook


def _is_passing(output: Any) -> bool:
    """What matters only while one waits: the time left, and warnings of the notebook's own tools."""
    text = output.get("text", "")
    return output.output_type == "stream" and ("of training left" in text or "Warning" in text)


def _without_places(output: Any, places: dict[str, str]) -> None:
    """Paths of the machine that ran it mean nothing elsewhere."""
    texts = output.get("data", output)
    for key, value in texts.items():
        if isinstance(value, str):
            for place, name in places.items():
                value = value.replace(place, name)
            texts[key] = value


if __name__ == "__main__":
    NOTEBOOK.write_text(json.dumps(executed(), indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"wrote {NOTEBOOK.relative_to(ROOT)}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB\n")
