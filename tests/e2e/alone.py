"""Uses the product as a person would, in the environment that it is started in: `python alone.py BUNDLE PHOTO WORK`.

A script and no test, so that all of it can run in a network namespace, or under a tracer.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: bytes | None = None, kind: str = "image/jpeg") -> bytes:
    """What comes back for a GET, or a POST of this body."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind} if body else {})
    with urllib.request.urlopen(request, timeout=150) as answer:
        return bytes(answer.read())


@contextmanager
def running(command: list[str], ready: str, **variables: str) -> Iterator[None]:
    """A server that answers at `ready`, stopped at the end."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables})
    try:
        for _ in range(600):
            try:
                ask(ready)
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    raise SystemExit(f"{command} ended with {process.returncode}") from None
                time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def form(photo: bytes) -> tuple[bytes, str]:
    """The photo as a browser sends it."""
    head = (
        b'--line\r\nContent-Disposition: form-data; name="file"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    return head + photo + b"\r\n--line--\r\n", "multipart/form-data; boundary=line"


def aidetect(*arguments: str) -> None:
    """One command of the command line, which must end well."""
    subprocess.run([sys.executable, "-c", "from pipelines.cli import main; main()", *arguments], cwd=ROOT, check=True)


def main(bundle: str, photo: Path, work: Path) -> None:
    """Server, page and command line, one after the other."""
    address = f"http://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    # on a busy machine the first explanation waits long for its imports; how long is not what is asked here
    variables = {"MODEL_URI": bundle, "HOST": "127.0.0.1", "PORT": port, "REQUEST_TIMEOUT_S": "120"}
    with running([sys.executable, "-m", "serving"], address + "/readyz", **variables):
        verdict = json.loads(ask(address + "/predict", *form(photo.read_bytes())))
        assert verdict["prediction"] in {"real", "ai_generated"}, verdict
        ask(address + "/predict/explain", *form(photo.read_bytes()))
        ask(address + "/docs")

    page = f"http://127.0.0.1:{free_port()}"
    options = ["--server.address=127.0.0.1", f"--server.port={page.rpartition(':')[2]}", "--server.headless=true"]
    command = [sys.executable, "-m", "streamlit", "run", "serving/ui/app.py", *options]
    with running(command, page + "/_stcore/health", STREAMLIT_BROWSER_GATHER_USAGE_STATS="false"):
        ask(page)

    aidetect("predict", str(photo), "--model", bundle)
    aidetect("models", "--set", f"paths.workspace={work / 'workspace'}")
    for settings in sys.argv[4:]:
        sets = [part for pair in json.loads(settings).items() for part in ("--set", "=".join(pair))]
        aidetect("run", "--profile", "sample", "--on", "local", "--set", f"paths.workspace={work / 'run'}", *sets)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
