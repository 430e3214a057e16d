"""A tied child ends with its parent, also when that is killed; one let go stays."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.platform.processes import tied

PARENT = """
import subprocess, sys, time
from serving.platform.processes import tied, untie
child = subprocess.Popen(tied("timeit", "-n1", "-r1", {statement!r}), stdin=subprocess.PIPE, start_new_session=True)
{then}
print(child.pid, flush=True)
time.sleep(300)
"""
SLEEPS = "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"


def family(parent: "subprocess.Popen[str]", size: int) -> list[psutil.Process]:
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 60
    while len(child.children()) < size - 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [child, *child.children()]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_child_and_grandchild_end_with_a_killed_parent(kill: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(statement=SLEEPS, then="")], stdout=subprocess.PIPE, text=True
    ) as parent:
        members = family(parent, 2)
        parent.send_signal(kill)
    assert not psutil.wait_procs(members, timeout=60)[1]


def test_one_let_go_outlives_its_parent(tmp_path: Path) -> None:
    done = tmp_path / "done"
    statement = f"import time; time.sleep(1.0); open({str(done)!r}, 'w').close()"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(statement=statement, then="untie(child)")],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        (child,) = family(parent, 1)
        parent.kill()
    assert not psutil.wait_procs([child], timeout=60)[1]
    assert done.is_file()


def test_a_module_runs_as_it_would_by_itself() -> None:
    child = subprocess.Popen(
        tied("platform", "--terse"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.wait(60) == 0
    alone = subprocess.run([sys.executable, "-m", "platform", "--terse"], capture_output=True, check=True)
    assert child.stdout is not None and child.stdout.read() == alone.stdout
