"""The second DAG: plan -> score every group of shards, several at once -> sum up; the engine of `aidetect score`."""

from collections.abc import Callable

from kfp import dsl

from components.catalogue.component import plan_catalogue, report_catalogue, score_group
from pipelines.settings.names import JOB_NAMES

PIPELINE_NAME = JOB_NAMES["catalogue"]
RETRIES = 2
"""Of a group whose machine was taken away: what it had committed stays, so a repetition is short."""


def build_catalogue(
    place: Callable[[dsl.PipelineTask], None], parallel: int, recurring: bool = False
) -> Callable[..., None]:
    """The pipeline function.

    Args:
        place: sets a task's image and machine.
        parallel: groups scored at once.
        recurring: every run writes into a folder of its own, named by the run: what it finds next week is another job.
    """

    @dsl.pipeline(name=PIPELINE_NAME, description="A verdict for every photo of a catalogue, as Parquet.")
    def catalogue(source: str, destination: str, model_uri: str, tracking_uri: str, config: dict) -> None:
        common = {
            "destination": destination,
            "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER if recurring else "",
            "model_uri": model_uri,
            "tracking_uri": tracking_uri,
            "config": config,
        }
        planned = plan_catalogue(source=source, **common)
        place(planned)
        with dsl.ParallelFor(planned.output, name="groups", parallelism=parallel) as group:
            scored = score_group(group=group, **common)
            place(scored)
            scored.set_retry(RETRIES, backoff_duration="30s")
        summed = report_catalogue(**common)
        place(summed)
        summed.after(scored)

    return catalogue
