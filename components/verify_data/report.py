"""The data report: one HTML page that stands alone."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.verify_data.checks import Checked
from components.verify_data.findings import Findings


def write_report(path: Path, uri: str, findings: Findings, checked: Checked, targets: npt.NDArray[np.intp]) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(findings.model_dump_json(indent=1))
