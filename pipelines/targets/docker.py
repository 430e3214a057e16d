"""Run the compiled spec in containers of this machine's Docker Engine, one for each stage, beside an MLflow server."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.platform.database import ready
from components.platform.signals import interrupts_held, sigterm_raises
from pipelines.config import CREDENTIALS, application_credentials, child_environment, revision
from pipelines.runs import PARAMETERS_FILE, RunRecord
from pipelines.settings.names import Stage
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.local import LocalTarget
from pipelines.targets.runner import run_spec
from pipelines.targets.target import Listener
from serving.platform.errors import StageError
from serving.platform.processes import tied

if TYPE_CHECKING:
    import docker
    from kfp import dsl

CONTAINERS_FILE: Final = "containers.json"
_REVISION: Final = "org.opencontainers.image.revision"
_MLFLOW_START_S: Final = 120.0


class DockerTarget(LocalTarget):
    """Containers of this machine's Docker Engine, which end with the command that started them."""

    def place(self, stage: Stage, task: "dsl.PipelineTask") -> None:
        """Name the image that the stage runs in; what starts a server in its own container needs one that holds both.

        A stage is never answered from a cache.
        """
        super().place(stage, task)
        if stage == "deploy" and self.config.deploy.starts_server:
            task.set_container_image(self.config.docker.deploy_image)

    def prepare(self, spec: dict[str, Any], parameters: dict[str, Any], ask: bool = True) -> list[str]:
        """Ask the engine whether it can run the spec.

        Returns:
            A sentence for each image that was built from other code than this.

        Raises:
            StageError: no engine answers, or an image is neither here nor to be had.
        """
        del parameters
        return check_engine(spec, revision()) if ask else []

    def run(self, record: RunRecord, parameters: dict[str, Any], listener: Listener) -> None:
        """Run the spec in the record's folder to its end, beside an MLflow server where none is configured.

        Raises:
            StageError: the server did not start.
        """
        with sigterm_raises(), registry_server(self.config) as uri:
            if record.pipeline == "catalogue":
                told = {**parameters, "tracking_uri": uri}
            else:
                told = {**parameters, "context": {**parameters["context"], "tracking_uri": uri, "artifact_root": ""}}
            (Path(record.folder) / PARAMETERS_FILE).write_text(json.dumps(told, indent=1))
            write_options(Path(record.folder), self.config)
            containers = str(Path(record.folder) / CONTAINERS_FILE)
            run_spec(record, listener, "--runner", "docker", "--containers", containers)


def container_options(config: PipelineConfig) -> dict[str, Any]:
    """What every stage's container is given, in docker-py's words: this user, no capability, a read-only root.

    What the configuration (its paths absolute) names on this disk is mounted at the same place.
    """
    ready(config.tracking_uri)
    workspace = config.paths.workspace.resolve()
    written, read = (
        [str(workspace)],
        [_folder_of(config.data.uri), config.train.weights_uri, config.evaluate.outside, config.catalogue.model_uri],
    )
    if config.catalogue.output and "://" not in config.catalogue.output:
        written.append(config.catalogue.output)
    if config.train.checkpoint_dir:
        written.append(config.train.checkpoint_dir)
    if "://" not in config.deploy.ledger_path:
        written.append(str(Path(config.deploy.ledger_path).parent))
    if application_credentials():
        read.append(application_credentials())
    outside = [path for path in written[1:] if not Path(path).is_relative_to(workspace)]
    for path in outside:
        Path(path).mkdir(parents=True, exist_ok=True)
    # what is missing is named by the stage that reads it, in its own words
    inputs = [path for path in read if path and "://" not in path and Path(path).exists()]
    read_only = dict.fromkeys(inputs, True) | dict.fromkeys([str(workspace), *outside], False)
    return {
        "user": f"{os.getuid()}:{os.getgid()}",
        # the stages reach MLflow, and whatever else listens on this machine, by the addresses that it has here
        "network_mode": "host",
        "environment": {CREDENTIALS: application_credentials()} if application_credentials() else {},
        "mounts": [
            {"Target": path, "Source": path, "Type": "bind", "ReadOnly": value} for path, value in read_only.items()
        ],
        "read_only": True,
        "tmpfs": {"/tmp": ""},  # noqa: S108 - in the container
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }


def _folder_of(source: str) -> str:
    """What of a source on this disk the stages must see: of a pattern the folder before it, of a feed its folder."""
    if not source or "://" in source:
        return source
    fixed = Path(source)
    while any(c in str(fixed) for c in "*?[") and not fixed.exists():
        fixed = fixed.parent
    return str(fixed.parent if fixed.is_file() else fixed)


def check_engine(spec: Mapping[str, Any], git_sha: str) -> list[str]:
    """Ask the engine whether it can run the spec.

    Args:
        spec: the compiled spec.
        git_sha: commit of this checkout.

    Returns:
        A sentence for each image that was built from other code than this.

    Raises:
        StageError: no engine answers, or an image is neither here nor to be had.
    """
    import docker
    from docker.errors import APIError, ImageNotFound

    client = connect()
    warnings = []
    try:
        for image in sorted({entry["container"]["image"] for entry in spec["deploymentSpec"]["executors"].values()}):
            try:
                found = client.images.get(image)
            except ImageNotFound:
                found = _pulled(client, image)
            built_from = str(found.labels.get(_REVISION, "unknown"))
            if built_from != git_sha:
                warnings.append(
                    f"{image} holds the code of {built_from[:12]}, this checkout is {git_sha[:12]}; "
                    "`make images` builds it anew"
                )
    except (docker.errors.DockerException, APIError) as error:
        raise StageError(f"Docker Engine: {_line(error)}") from error
    finally:
        client.close()
    return warnings


def connect() -> "docker.DockerClient":
    """A client of the engine that `DOCKER_HOST` names, or of this machine's own.

    Raises:
        StageError: none answers.
    """
    try:
        import docker
    except ImportError as error:
        raise StageError("--on docker needs the extra `local`: pip install -e '.[local]'") from error
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise StageError(
            f"no Docker Engine answers; start it or set DOCKER_HOST, or run with --on local ({_line(error)})"
        ) from error
    return client


def _pulled(client: "docker.DockerClient", image: str) -> Any:
    from docker.errors import APIError

    try:
        return client.images.pull(image)
    except APIError as error:
        raise StageError(f"image {image} is not here and cannot be pulled; build it with `make images`") from error


@contextmanager
def registry_server(config: PipelineConfig) -> Iterator[str]:
    """Address of an MLflow server for a run in containers.

    The images hold MLflow's thin client, which opens no sqlite. A server that is configured is used as it is; otherwise
    one listens on loopback for the run's time, on the workspace's own sqlite and files: what it registers is what
    `--on local` would have registered.

    Raises:
        StageError: the server did not start.
    """
    if not config.tracking_uri.startswith("sqlite:"):
        yield config.tracking_uri
        return
    workspace = config.paths.workspace.resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = tied("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    command += ["--backend-store-uri", config.tracking_uri, "--no-serve-artifacts"]
    command += ["--default-artifact-root", (workspace / "mlflow-artifacts").as_uri()]
    with tempfile.TemporaryFile() as log:
        server: subprocess.Popen[bytes] | None = None
        try:
            with interrupts_held():
                server = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # its jobs, which nothing here asks for, would be eight more processes
                    env=child_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
                    start_new_session=True,
                )
            uri = f"http://127.0.0.1:{port}"
            if not _healthy(server, uri):
                log.seek(0)
                last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise StageError(f"the MLflow server for this run did not start: {last or 'it said nothing'}")
            yield uri
        finally:
            if server is not None:
                _end(server)


def _healthy(server: "subprocess.Popen[bytes]", uri: str) -> bool:
    deadline = time.monotonic() + _MLFLOW_START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):  # noqa: S310 - the address is made here
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _end(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    if server.stdin is not None:
        server.stdin.close()


def write_options(folder: Path, config: PipelineConfig) -> None:
    """Keep what the stages' containers are given beside the spec that they run."""
    (folder / CONTAINERS_FILE).write_text(json.dumps(container_options(config), indent=1))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
