"""The page's image has what the page imports, and nothing of the model's runtime."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ABSENT = (
    "torch",
    "kfp",
    "mlflow",
    "onnxruntime",
    "fastapi",
    "components",
    "pipelines",
    "safetensors",
    "scipy",
    "orjson",
)
"""What the image does not have; see infra/ci/images.sh."""
SCRIPT = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
from serving.ui import batch, case, detect, drift, history, model
print(json.dumps(sorted({name.split(".")[1] for name in sys.modules if name.startswith("serving.")})))
"""


def test_the_image_holds_every_room_that_the_page_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(ABSENT)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    dockerfile = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
    copied = re.search(r"for part in (.*?); do cp -r /serving/serving/\$part /ui/serving/", dockerfile)
    assert copied is not None
    assert set(json.loads(done.stdout)) == set(copied[1].split()) - {"__init__.py"}
