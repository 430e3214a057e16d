"""Deploy the version that register made."""

from pathlib import Path

from components.artifacts.context import RunContext
from components.artifacts.deployment import Deployment, write_deployment
from components.artifacts.model_version import read_model_version
from components.deploy.config import DeployConfig
from components.deploy.promotion import Reason, deploy_version


def deploy(model_version: Path, config: DeployConfig, context: RunContext, output: Path) -> Deployment:
    """Try the version at the configured target, make it champion, and write `output`.

    Raises:
        StageError: it is not served; champion and traffic are as before, and the ledger says why.
    """
    reason = Reason(who=f"pipeline run {context.run_id}", why=context.reason)
    deployment = deploy_version(read_model_version(model_version), config, reason)
    write_deployment(output, deployment)
    return deployment
