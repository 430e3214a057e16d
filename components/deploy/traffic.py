"""Who gets which share of a Cloud Run service's users, as its traffic targets say it."""

from typing import TYPE_CHECKING, Any

from components.deploy.config import DeployConfig
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from google.cloud.run_v2 import Service, TrafficTarget


def held_by_name(service: "Service", config: DeployConfig) -> "list[TrafficTarget]":
    """Users' traffic as it is now, by revision name.

    Raises:
        StageError: nobody is served yet.
    """
    from google.cloud import run_v2

    held = [
        run_v2.TrafficTarget(
            type_=by_revision(),
            revision=status.revision or short(service.latest_ready_revision),
            percent=status.percent,
        )
        for status in service.traffic_statuses
        if status.percent
    ]
    if not held:
        raise StageError(f"Cloud Run service {config.service} serves no revision yet; apply Terraform first")
    return held


def tagged(service: "Service", *without: str) -> "list[TrafficTarget]":
    """The tags of revisions that have no users, but those named."""
    return [target for target in service.traffic if target.tag and not target.percent and target.tag not in without]


def tag_target(revision: str, tag: str) -> "TrafficTarget":
    """A tag on a revision, at 0 % of the traffic."""
    from google.cloud import run_v2

    return run_v2.TrafficTarget(type_=by_revision(), revision=revision, percent=0, tag=tag)


def newest(percent: int, tag: str = "") -> "TrafficTarget":
    """Traffic that follows whichever revision is the newest."""
    from google.cloud import run_v2

    latest = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
    return run_v2.TrafficTarget(type_=latest, percent=percent, tag=tag)


def by_revision() -> Any:
    """Google's word for a share that goes to one revision by its name."""
    from google.cloud import run_v2

    return run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION


def short(revision: str) -> str:
    """A revision's name without the path before it."""
    return revision.rpartition("/")[2]
