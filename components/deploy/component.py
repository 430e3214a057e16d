"""KFP face of deploy."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Output


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def deploy(model_version: Input[Artifact], config: dict, context: dict, job: str, deployment: Output[Artifact]):
    """Bring a registered version into service: smoke test without users, canary, promotion; any failure rolls back.

    Args:
        model_version: the version that register made.
        config: section `deploy` of the configuration.
        context: identity of the run and where its records go.
        job: the target's own name of the run; the run's id where it is started by a schedule.
        deployment: `deployment.json`, what serves now.
    """
    from pathlib import Path

    from components.artifacts.context import RunContext
    from components.deploy.config import DeployConfig
    from components.deploy.stage import deploy as deploy_registered

    done = deploy_registered(
        Path(model_version.path),
        DeployConfig.model_validate(config),
        RunContext.of(context, job),
        Path(deployment.path),
    )
    deployment.metadata.update(target=done.target, version=done.version, smoke=done.smoke, url=done.url)
