"""The DAG: verify -> train -> evaluate -> gate -> register -> deploy, the same for every place it runs."""

from collections.abc import Callable

from kfp import dsl

from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.quality_gate.component import quality_gate
from components.register.component import register
from components.train.component import train
from components.verify_data.component import verify_data
from pipelines.settings.names import Stage

PIPELINE_NAME = "ai-product-photo-detector"


Placing = Callable[[Stage, dsl.PipelineTask], None]
"""Sets one stage's task for its target: image, machine, caching."""


def build_pipeline(placing: Placing, caches: bool = False) -> Callable[..., None]:
    """The pipeline function, with each task placed by `placing`; compile it or run it.

    Args:
        placing: sets image, machine and caching.
        caches: an earlier run may answer for `CACHED`: then nothing that differs from run to run is among their inputs.
    """

    @dsl.pipeline(name=PIPELINE_NAME, description="Real or AI-generated: from raw photos to a served, gated model.")
    def training(
        data_uri: str,
        data_labels: dict,
        context: dict,
        verify_data_config: dict,
        train_config: dict,
        evaluate_config: dict,
        gate_config: dict,
        register_config: dict,
        deploy_config: dict,
        auto_deploy: bool,
        data_state: str = "",
        lasting_context: dict = {},  # noqa: B006 - KFP writes the default into the spec
    ) -> None:
        job = dsl.PIPELINE_JOB_NAME_PLACEHOLDER  # a string of its own: KFP fills no placeholder inside a struct

        def place(task: dsl.PipelineTask, stage: Stage) -> dsl.PipelineTask:
            placing(stage, task)
            return task

        data = place(
            verify_data(data_uri=data_uri, data_labels=data_labels, config=verify_data_config, data_state=data_state),
            "verify_data",
        )
        model = place(
            train(
                dataset=data.outputs["dataset"],
                config=train_config,
                context=lasting_context if caches else context,
                job="" if caches else job,
            ),
            "train",
        )
        scores = place(
            evaluate(
                bundle=model.outputs["bundle"],
                dataset=data.outputs["dataset"],
                config=evaluate_config,
                context=context,
                job=job,
            ),
            "evaluate",
        )
        gate = place(
            quality_gate(evaluation=scores.outputs["evaluation"], config=gate_config, context=context, job=job),
            "quality_gate",
        )
        with dsl.If(gate.outputs["Output"] == True, name="gate-passed"):  # noqa: E712 - a KFP condition, not Python's
            version = place(
                register(
                    bundle=model.outputs["bundle"],
                    evaluation=scores.outputs["evaluation"],
                    verdict=gate.outputs["verdict"],
                    gate_config=gate_config,
                    config=register_config,
                    context=context,
                    job=job,
                ),
                "register",
            )
            with dsl.If(auto_deploy == True, name="auto-deploy"):  # noqa: E712 - kfp builds a condition of it
                place(
                    deploy(
                        model_version=version.outputs["model_version"],
                        config=deploy_config,
                        context=context,
                        job=job,
                    ),
                    "deploy",
                )

    return training
