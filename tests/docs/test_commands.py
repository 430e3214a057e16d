"""Every command of README and guides runs in a fresh clone, or says why not; small settings, real parts."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bundles import jpeg
from tests.docs.commands import PAGES, Command, commands
from tests.docs.conftest import Clone
from tests.e2e.conftest import ROOT, SMALL, own_photos
from tests.serving.processes import free_port

CI = (ROOT / ".ci" / "run").read_text()
EASY = {
    "gate.min_accuracy": "0",
    "gate.min_f1": "0",
    # which of two networks of one epoch is the better is a matter of luck
    "gate.non_inferiority_margin": "1",
    "verify_data.min_rows": "10",
}
SERVERS = {
    "make serve": ("PORT", 8080, "/readyz"),
    "make ui": ("UI_PORT", 8501, "/"),
    "make mlflow": ("MLFLOW_PORT", 5000, "/health"),
}
"""Commands that serve until they are stopped: variable of the port, port in the text, what answers when it is up."""


def in_ci(text: str) -> bool:
    """Whether `.ci/run` runs this make target by itself, on its own terms."""
    return (
        re.fullmatch(r"make [a-z-]+", text) is not None
        and re.search(rf"\b{text}(?: [A-Z]+=\w+)?$", CI, re.MULTILINE) is not None
    )


def runs_here(command: Command) -> bool:
    return not command.reason and (command.text == "make run" or not in_ci(command.text))


def test_pages_hold_commands_and_every_mark_has_a_reason() -> None:
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 40
    fences = {fence for page in PAGES for fence in re.findall(r"^ *```(\w+)", page.read_text(), re.MULTILINE)}
    assert fences <= {"bash", "json", "text", "yaml"}  # a command in another kind of block would be run by nobody
    assert [str(command) for command in found if command.reason and len(command.reason.split()) < 3] == []
    assert sum(runs_here(command) for command in found) > 25


def test_what_a_mark_says_is_run_elsewhere_is_run_there() -> None:
    marked = [command for page in PAGES for command in commands(page) if command.reason]
    promised = [command.text for command in marked if "`.ci/run` runs" in command.reason]
    promised += [target for command in marked for target in re.findall(r"`(make [a-z-]+)`", command.reason)]
    assert len(promised) > 5
    assert [text for text in promised if not in_ci(text)] == []
    files = {path for command in marked for path in re.findall(r"\btests/[\w/.]+\.py", command.reason)}
    assert files and all((ROOT / path).is_file() for path in files)


@contextmanager
def serving(clone: Clone, text: str, settings: dict[str, str]) -> Iterator[int]:
    """One of `SERVERS`, on a free port; ended with everything it started."""
    variable, _, path = SERVERS[text]
    port = free_port()
    log = (clone.folder / "server.log").open("w")
    process = subprocess.Popen(
        ["bash", "-c", text],
        cwd=clone.folder,
        env=clone.environment(**settings, **{variable: str(port)}),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            said = (clone.folder / "server.log").read_text()
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        log.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def used(clone: Clone) -> Clone:
    """A clone with a reader's photo and his folder of photos in it, in which `make run` ran."""
    (clone.folder / "photo.jpg").write_bytes(jpeg(180))
    own_photos(clone.folder / "mine", each=80)
    done = clone.sh("make run", **environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


def environment() -> dict[str, Any]:
    """Small settings; `--set` in a command still wins."""
    keys = {f"AIDETECT_{key.upper().replace('.', '__')}": value for key, value in (SMALL | EASY).items()}
    return keys | {"OMP_NUM_THREADS": "1"}


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(map(runs_here, commands(p)))], ids=lambda p: p.stem)
def test_the_commands_of_a_page_run(used: Clone, page: Path) -> None:
    settings = environment()
    ports: dict[int, int] = {}
    servers = []
    try:
        for command in filter(runs_here, commands(page)):
            if command.text in SERVERS:
                server = serving(used, command.text, settings)
                ports[SERVERS[command.text][1]] = server.__enter__()
                servers.append(server)
                continue
            if command.text == "make run":
                continue  # the fixture did
            text = command.text
            for written, real in ports.items():
                text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{real}")
            done = used.sh(
                text if "curl " not in text else text.replace("curl ", "curl --fail-with-body -sS "), **settings
            )
            assert done.returncode == command.exit_code, (str(command), done.stdout[-2000:], done.stderr[-2000:])
    finally:
        for server in reversed(servers):
            server.__exit__(None, None, None)


def test_what_ran_and_what_did_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = [command for page in PAGES for command in commands(page)]
    here, ci = [c for c in found if runs_here(c)], [c for c in found if not c.reason and in_ci(c.text)]
    marked = [c for c in found if c.reason]
    assert len({str(c) for c in [*here, *marked]} | {str(c) for c in ci}) == len({str(c) for c in found})
    with capsys.disabled():
        print(f"\ndocs: {len(here)} commands run by the docs test, {len(ci)} by .ci/run itself, {len(marked)} not run:")
        for command in marked:
            print(f"  {command}  ({command.reason})")
