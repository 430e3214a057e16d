"""Nothing is reported to anybody: no address but loopback is asked for, and the home folder stays empty.

Real processes of the server, the page and the command line. The plain test sees what Python asks for; the system test
sees every system call of them, in a network namespace of their own, and a whole run of the pipeline.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import jpeg
from tests.e2e.conftest import ROOT, SMALL

WATCH = """
import os, sys
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple): host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"): host = arguments[0]
    else: return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        with open(os.environ["WATCHED"], "a") as file: file.write(f"{event} {host} {sys.argv}\\n")
sys.addaudithook(watch)
"""
ADDRESS = re.compile(r'sin6?_addr=inet_(?:addr\("|pton\(AF_INET6, "|ntop\()([^"]+)"|inet_pton\(AF_INET6, "([^"]+)"')


class Alone:
    """`tests/e2e/alone.py` with a home folder of its own, and none of the variables that a developer or CI sets."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.home, self.work, self.watched = folder / "home", folder / "work", folder / "watched"
        for made in (self.home, self.work, folder / "tmp", folder / "site"):
            made.mkdir()
        (folder / "site/sitecustomize.py").write_text(WATCH)
        photo = folder / "photo.jpg"
        photo.write_bytes(jpeg(200))
        self.command = [sys.executable, str(ROOT / "tests/e2e/alone.py"), str(bundle), str(photo), str(self.work)]
        self.environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": f"{folder / 'site'}:{ROOT}",
            "WATCHED": str(self.watched),
            "OMP_NUM_THREADS": "1",
        }

    def live(self, *prefix: str, settings: dict[str, str] | None = None) -> None:
        """All of it, started through `prefix`; with `settings`, a run of the pipeline, too."""
        last = [json.dumps(settings)] if settings else []
        command = [*prefix, *self.command, *last]
        done = subprocess.run(command, cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    def left_at_home(self) -> list[str]:
        """Every file and folder below the home folder."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))


@pytest.fixture
def alone(tmp_path: Path, toy_bundle: Path) -> Alone:
    return Alone(tmp_path, toy_bundle)


def test_server_page_and_command_line_ask_for_nobody_and_leave_the_home_folder_empty(alone: Alone) -> None:
    alone.live()
    assert not alone.watched.exists(), alone.watched.read_text()
    assert alone.left_at_home() == []


@pytest.mark.system
def test_without_a_network_no_system_call_asks_for_anybody(alone: Alone, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    namespace = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    alone.live(
        *namespace, "strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", str(trace),
        settings={**SMALL, "gate.min_accuracy": "0", "gate.min_f1": "0"},
    )  # fmt: skip
    asked = {first or second for first, second in ADDRESS.findall(trace.read_text())}
    assert asked, "strace saw no connection at all, not even to loopback"
    assert {address for address in asked if not address.startswith(("127.", "::1", "::ffff:127."))} == set()
    assert alone.left_at_home() == []
