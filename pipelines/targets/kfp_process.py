"""Child process that runs a compiled spec under one of KFP's local runners (`python -m pipelines.targets.kfp_process`).

A process of its own, because the runners keep global state, print to standard output, and must be stopped with all
their children when the user interrupts.
"""

import argparse
import json
import logging
import warnings
from pathlib import Path


def main() -> int:
    """Run one spec to its end; the exit status says whether every task succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--parameters", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--runner", choices=["subprocess", "docker"], required=True)
    arguments = parser.parse_args()

    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*base image.*")
    from kfp import components, local

    runner: local.SubprocessRunner | local.DockerRunner
    if arguments.runner == "subprocess":
        runner = local.SubprocessRunner(use_venv=False)
    else:
        runner = local.DockerRunner(network_mode="host")
    local.init(runner, pipeline_root=str(arguments.root))
    pipeline = components.load_component_from_file(str(arguments.spec))
    try:
        pipeline(**json.loads(arguments.parameters.read_text()))
    except RuntimeError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
