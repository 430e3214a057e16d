"""KFP face of register."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def register(
    bundle: Input[Model],
    evaluation: Input[Artifact],
    verdict: Input[Artifact],
    gate_config: dict,
    config: dict,
    context: dict,
    job: str,
    model_version: Output[Artifact],
):
    """Store a bundle that passed the gate as a new version of the registry, with its evaluation, verdict and card.

    Args:
        bundle: the trained model.
        evaluation: its figures.
        verdict: the gate's judgement of it.
        gate_config: section `gate` of the configuration: the evaluation is judged by it once more.
        config: section `register` of the configuration.
        context: identity of the run and where its records go.
        job: the target's own name of the run; the run's id where it is started by a schedule.
        model_version: `model_version.json`, the version's address.
    """
    from pathlib import Path

    from components.artifacts.context import RunContext
    from components.quality_gate.config import GateConfig
    from components.register.config import RegisterConfig
    from components.register.stage import Passed
    from components.register.stage import register as register_bundle

    version = register_bundle(
        Passed(Path(bundle.path), Path(evaluation.path), Path(verdict.path), GateConfig.model_validate(gate_config)),
        RegisterConfig.model_validate(config),
        RunContext.of(context, job),
        Path(model_version.path),
    )
    model_version.metadata.update(name=version.name, version=version.version, uri=version.uri)
