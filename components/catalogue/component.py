"""KFP faces of catalogue scoring: plan, score one group of shards, sum up."""

from kfp import dsl
from kfp.dsl import HTML, Metrics, Output


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def plan_catalogue(source: str, destination: str, run: str, model_uri: str, tracking_uri: str, config: dict) -> list:
    """Writes which photo belongs to which shard, or reads what an earlier run wrote; returns the groups of shards."""
    from components.catalogue.config import CatalogueConfig
    from components.catalogue.tasks import Place, plan

    place = Place(destination, run, model_uri, tracking_uri, CatalogueConfig.model_validate(config))
    return plan(place, source)


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def score_group(group: int, destination: str, run: str, model_uri: str, tracking_uri: str, config: dict) -> int:
    """Scores every shard of a group that has no part yet; returns how many photos it scored."""
    from components.catalogue.config import CatalogueConfig
    from components.catalogue.tasks import Place, score

    return score(Place(destination, run, model_uri, tracking_uri, CatalogueConfig.model_validate(config)), group)


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def report_catalogue(
    destination: str,
    run: str,
    model_uri: str,
    tracking_uri: str,
    config: dict,
    page: Output[HTML],
    metrics: Output[Metrics],
):
    """Sums up all rows: figures, and the page for people."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.tasks import Place, report

    place = Place(destination, run, model_uri, tracking_uri, CatalogueConfig.model_validate(config))
    for name, value in report(place, Path(page.path)).items():
        metrics.log_metric(name, value)
