"""Child process that runs a compiled spec under one of KFP's local runners (`python -m pipelines.targets.kfp_process`).

A process of its own, because the runners keep global state, print to standard output, and must be stopped with all
their children when the user interrupts.
"""

import argparse
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

STOP_S: Final = 15
"""Seconds an interrupted stage has to end by itself before its container is killed."""


def main() -> int:
    """Run one spec to its end; the exit status says whether every task succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--parameters", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--runner", choices=["subprocess", "docker"], default="subprocess")
    parser.add_argument("--containers", type=Path, help="options of every container (docker only)")
    parser.add_argument("--reused", type=Path, help="stages taken over from an earlier run, and where they lie")
    arguments = parser.parse_args()

    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*base image.*")
    from kfp import components, local

    runner: local.SubprocessRunner | local.DockerRunner
    if arguments.runner == "subprocess":
        from kfp.local import subprocess_task_handler

        runner = local.SubprocessRunner(use_venv=False)
        subprocess_task_handler.replace_python_executable = with_python
    else:
        from kfp.local import docker_task_handler

        from pipelines.config import container_environment

        options = json.loads(arguments.containers.read_text())
        # inherited here and not from the file: a run's folder holds no secrets
        options["environment"] = container_environment() | options["environment"]
        runner = local.DockerRunner(**options)
        docker_task_handler.run_docker_container = run_container
        # an exit that runs `finally`: a container outlives the process that started it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if arguments.reused:
        take_over(json.loads(arguments.reused.read_text()))
    local.init(runner, pipeline_root=str(arguments.root))
    pipeline = components.load_component_from_file(str(arguments.spec))
    try:
        pipeline(**json.loads(arguments.parameters.read_text()))
    except RuntimeError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


def with_python(command: list[str], python: str) -> list[str]:
    """A stage's command with the given interpreter in its shell script; takes the place of KFP's own function.

    KFP puts the path into the script as it is, where a space or a quote in it ends the word, and replaces `python3` in
    the stage's arguments too, which are inputs and folders.

    Args:
        command: shell, options, script, the stage's code, arguments.
        python: path of the interpreter.
    """
    script = next(at for at, word in enumerate(command) if '"$program_path/ephemeral_component.py"' in word)
    before = [word.replace("python3", shlex.quote(python)) for word in command[: script + 1]]
    return before + command[script + 1 :]


def take_over(reused: dict[str, str]) -> None:
    """Let tasks that an earlier run finished end at once, with that run's artifacts in their own place.

    Args:
        reused: KFP's name of the task -> its folder in the earlier run.
    """
    from kfp.local import docker_task_handler, status, subprocess_task_handler

    def instead(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def handle(handler: Any) -> Any:
            command = handler.full_command
            output = Path(json.loads(command[command.index("--executor_input") + 1])["outputs"]["outputFile"])
            found = Path(reused.get(output.parent.name, ""))
            if output.parent.name not in reused or not (found / output.name).is_file():
                return run(handler)
            shutil.copytree(found, output.parent, copy_function=_link, dirs_exist_ok=True)
            # the list of artifacts names their places; a new file, because the old run has the other name of this one
            places = output.read_text().replace(str(found), str(output.parent))
            output.unlink()
            output.write_text(places)
            print(f"taken over from {found}")  # noqa: T201 - a line of the task's log
            return status.Status.SUCCESS

        return handle

    for kind in (subprocess_task_handler.SubprocessTaskHandler, docker_task_handler.DockerTaskHandler):
        kind.run = instead(kind.run)


def _link(source: str, to: str) -> None:
    """A second name for the same bytes: artifacts are never changed; a copy where the disk knows no links."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)


def run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any) -> int:
    """Run one stage's container to its end and return its exit status; takes the place of KFP's own function.

    KFP asks the engine to remove the container as it ends and then asks for its status; where the removal is quicker,
    it calls a container that failed at once a success (kubeflow/pipelines#13332). Here it is removed after the answer.
    """
    container = client.containers.create(image, command, volumes=volumes, **options)
    try:
        container.start()
        for chunk in container.logs(stream=True):
            print(chunk.decode(errors="replace"), end="")  # noqa: T201 - KFP indents what a task prints
        return int(container.wait()["StatusCode"])
    finally:
        container.reload()
        if container.status == "running":
            # an interrupted stage takes back what it began; its shell, the first process, passes no signal on
            container.exec_run(["sh", "-c", "kill -TERM -1"])
            container.stop(timeout=STOP_S)
        container.remove(force=True)


if __name__ == "__main__":
    raise SystemExit(main())
