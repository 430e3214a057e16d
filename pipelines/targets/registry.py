"""The one place that knows which class stands behind a target's name; nothing else asks for the name."""

from typing import get_args

from pipelines.settings.names import TargetName
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.target import Target
from serving.platform.errors import ConfigError


def open_target(name: str, config: PipelineConfig) -> Target:
    """The target of that name, with this configuration; its libraries are loaded when it is first used.

    Raises:
        ConfigError: no target has that name.
    """
    match name:
        case "local":
            from pipelines.targets.local import LocalTarget

            return LocalTarget(config)
        case "docker":
            from pipelines.targets.docker import DockerTarget

            return DockerTarget(config)
        case "vertex":
            from pipelines.targets.vertex import VertexTarget

            return VertexTarget(config)
        case "kubeflow":
            from pipelines.targets.kubeflow import KubeflowTarget

            return KubeflowTarget(config)
    raise ConfigError(f"no target {name!r}; there are: {', '.join(get_args(TargetName))}")
