"""A Ray cluster of two nodes on this machine's loopback, for tests and for `make bench`."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
PATIENCE_S = 300
ATTEMPTS = 5


def until(what: Callable[[], bool], message: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < limit, message
        time.sleep(0.1)


def listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def free_ports(count: int) -> list[int]:
    with socket.socket() as first, socket.socket() as second:
        probes = (first, second)[:count]
        for probe in probes:
            probe.bind((HEAD, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _ready_or_ended(node: "subprocess.Popen[bytes]", log: Path, ready: Callable[[str], bool]) -> bool:
    return ready(log.read_text()) or node.poll() is not None


class Cluster:
    """`ray start --block` for each node; all processes of it are told by the folder that they were given."""

    def __init__(self, scratch: Path, hook: str) -> None:
        """Start the head.

        Args:
            scratch: folder with a short path: Ray's sockets lie in it, and the path of a socket has 107 bytes at most.
            hook: code that every Python process of the cluster runs first.
        """
        self.scratch = scratch
        hooks = scratch / "hook"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(hook)
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(hooks), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_worker_niceness": "0",
            # a busy machine starts Ray's processes slowly
            "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "60", "TIMEOUT_FOR_SPECIFIC_SERVER_S": "120",
            "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "60", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "120",
        }  # fmt: skip
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.port, self.client_port = free_ports(2)
        self.address = f"ray://{HEAD}:{self.client_port}"
        self._start(
            lambda _: listens(HEAD, self.client_port),
            "--head", f"--node-ip-address={HEAD}", f"--port={self.port}", "--include-dashboard=false",
            f"--ray-client-server-port={self.client_port}", f"--temp-dir={scratch / 'r'}",
        )  # fmt: skip

    def second(self) -> subprocess.Popen[bytes]:
        """Another node, that has said that it runs."""
        return self._start(
            lambda said: "Ray runtime started" in said, f"--address={HEAD}:{self.port}", f"--node-ip-address={OTHER}"
        )

    def _start(self, ready: Callable[[str], bool], *options: str) -> subprocess.Popen[bytes]:
        """A node that is ready, by what it says; Ray gives each half a minute to start, a busy machine needs more."""
        said = ""
        for _ in range(ATTEMPTS):
            path = self.scratch / f"node-{len(self.nodes)}.log"
            with path.open("wb") as log:
                node = subprocess.Popen(
                    [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1",
                     "--object-store-memory=100000000", *options],
                    env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            self.nodes.append(node)
            until(partial(_ready_or_ended, node, path, ready), "no node starts")
            if node.poll() is None:
                return node
            said = path.read_text()[-3000:]
        raise AssertionError(said)

    @staticmethod
    def kill(node: subprocess.Popen[bytes]) -> None:
        """Everything of a node at once, as a machine that loses its power."""
        with suppress(psutil.NoSuchProcess):
            family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        node.wait(30)

    def close(self) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
        # a client's server and its workers may have lost their parents before
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Every process of the cluster: the nodes' families, and what names its folder and lost its parents."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.scratch) in word for word in process.cmdline()):
                    found[process.pid] = process
        # a worker writes what it does over its command
        for parent in [*found.values(), *self._roots()]:
            with suppress(psutil.Error):
                found |= {child.pid: child for child in (parent, *parent.children(recursive=True))}
        return list(found.values())

    def _roots(self) -> Iterator[psutil.Process]:
        for node in self.nodes:
            with suppress(psutil.NoSuchProcess):
                yield psutil.Process(node.pid)


@contextmanager
def cluster(hook: str = "") -> Iterator[Cluster]:
    """A head with one CPU; all that was started ends with the block."""
    scratch = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    found: Cluster | None = None
    try:
        found = Cluster(scratch, hook)
        yield found
    finally:
        if found is not None:
            found.close()
        shutil.rmtree(scratch, ignore_errors=True)
