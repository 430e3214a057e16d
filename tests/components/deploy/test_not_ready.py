"""Revisions of Cloud Run that do not come up: one sentence with Google's reason and the fix, and users as before."""

from collections.abc import Callable

import pytest
from google.cloud import run_v2

from components.deploy.promotion import rollback
from serving.platform.errors import StageError
from tests.components.deploy.test_cloud_run import Cloud, assert_as_before, cloud
from tests.components.deploy.test_preview import Desk, desk
from tests.fakes.cloud_run import Unready

__all__ = ["cloud", "desk"]

LOG = "gcloud logging read 'resource.labels.revision_name=\"detector-00001-gen\"' --project proj --limit 50"
START = (
    "The user-provided container failed to start and listen on the port defined provided by the PORT=8080 environment "
    "variable within the allocated timeout. Logs for this revision might contain more information.\n\nLogs URL: "
    "https://console.cloud.google.com/logs/viewer?project=proj"
)
BROKEN = "registry/serving@sha256:" + "b" * 64
KINDS = {
    "start-up probe": (Unready(9, START, "HEALTH_CHECK_CONTAINER_ERROR"), f"read its log: {LOG}"),
    "image missing": (
        Unready(5, f"Image '{BROKEN}' not found.", "CONTAINER_MISSING"),
        "push the image, or name one that is there: aidetect deploy --image NAME@sha256:...",
    ),
    "image unreadable": (
        Unready(7, "Google Cloud Run Service Agent must have permission to read the image, registry/serving."),
        "let Cloud Run's service agent read the repository: roles/artifactregistry.reader",
    ),
    "secret": (
        Unready(7, "Permission denied on secret: projects/1/secrets/keys/versions/latest for Revision."),
        "grant the service's account roles/secretmanager.secretAccessor on that secret, and see that it has a version",
    ),
    "quota": (
        Unready(8, "Quota exceeded for total allowable CPU per project per region."),
        "ask for more quota, or lower the service's most instances",
    ),
    "something else": (Unready(13, "Internal error.", "INTERNAL"), f"read its log: {LOG}"),
}


def of_version(version: str, unready: Unready) -> Callable[[run_v2.RevisionTemplate], Unready | None]:
    """Lets no revision of a version come up."""

    def why(template: run_v2.RevisionTemplate) -> Unready | None:
        serves = {variable.name: variable.value for variable in template.containers[0].env}
        return unready if serves.get("MODEL_VERSION") == version else None

    return why


@pytest.mark.parametrize("kind", KINDS)
def test_a_revision_that_is_not_ready_is_told_with_its_fix_and_nothing_is_left_of_it(cloud: Cloud, kind: str) -> None:
    unready, fix = KINDS[kind]
    old = cloud.run.made[0]
    cloud.run.unready = of_version("2", unready)
    with pytest.raises(StageError) as caught:
        cloud.deploy(image=BROKEN)
    said = str(caught.value)
    assert said.startswith("make the new revision of Cloud Run service detector: ")
    assert said.endswith(f"; {fix}")
    assert "Revision 'detector-00001-gen' is not ready and cannot serve traffic" in said
    assert unready.reason in said and "\n" not in said and "rollback failed" not in said
    assert_as_before(cloud, "is not ready and cannot serve traffic")
    # users never left the old revision: the template came back in one update, and was let follow the newest after
    fields = [request.query["updateMask"] for request in cloud.run.updates]
    assert fields == ["template,traffic", "traffic,template", "traffic"]
    assert cloud.run.revisions[old].containers == cloud.run.revisions[cloud.run.made[-1]].containers


def test_after_it_the_next_version_is_released_and_rolled_back_as_ever(cloud: Cloud) -> None:
    cloud.run.unready = of_version("2", KINDS["start-up probe"][0])
    with pytest.raises(StageError, match="HEALTH_CHECK_CONTAINER_ERROR"):
        cloud.deploy()
    cloud.run.unready = lambda _: None
    cloud.deploy()
    assert cloud.shop.crowned == "2"
    context = cloud.shop.context
    back = rollback(context.tracking_uri, context.model_name, cloud.config(), "false alarms", "ada")
    assert (back.version, cloud.shop.crowned) == ("1", "1")
    assert cloud.run.environment(next(iter(cloud.run.split)))["MODEL_VERSION"] == "1"


def test_a_rollback_that_cannot_start_leaves_the_champion_serving(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.run.unready = of_version("1", KINDS["quota"][0])
    context = cloud.shop.context
    with pytest.raises(StageError, match="Quota exceeded"):
        rollback(context.tracking_uri, context.model_name, cloud.config(), "false alarms", "ada")
    assert cloud.shop.crowned == "2"
    assert cloud.run.environment(next(iter(cloud.run.split)))["MODEL_VERSION"] == "2"
    assert not cloud.run.pinned


def test_a_service_whose_newest_revision_is_broken_already_is_not_built_upon(cloud: Cloud) -> None:
    old = cloud.run.made[0]
    # as an apply of Terraform's leaves it whose setting names a secret that cannot be read
    cloud.run.unready = lambda template: KINDS["secret"][0] if template.labels.get("by") == "terraform" else None
    cloud.run.service.template.labels["by"] = "terraform"
    cloud.run._revise()
    with pytest.raises(StageError) as caught:
        cloud.deploy()
    assert "the newest revision of Cloud Run service detector is not ready" in str(caught.value)
    assert cloud.run.updates == []
    # another image is somebody's decision; here it does not help, and users stay on what served them
    with pytest.raises(StageError, match="Permission denied on secret"):
        cloud.deploy(image=BROKEN)
    assert cloud.run.split == {old: 100}
    assert cloud.shop.crowned == "1"


def test_an_update_that_never_ends_is_told_as_that(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    running = cloud.run.running

    def slow(parent: str, kind: str, response: dict[str, object]) -> dict[str, object]:
        begun = running(parent, kind, response)
        if len(cloud.run.operations) == 1:
            cloud.run.operations[begun["name"]] = begun
        return begun

    monkeypatch.setattr(cloud.run, "running", slow)
    with pytest.raises(StageError, match=r"it has not come up within 1 s; read its log: gcloud") as caught:
        cloud.deploy(operation_timeout_s=1.0)
    assert "check the network" not in str(caught.value)
    assert_as_before(cloud, "has not come up")


def test_a_preview_that_does_not_start_takes_itself_away(desk: Desk) -> None:
    run = desk.cloud.run
    run.unready = lambda template: KINDS["start-up probe"][0] if "preview" in template.labels else None
    before = desk.traffic()
    code, out, err = desk.preview()
    assert (code, out) == (1, "")
    assert f"read its log: {LOG}" in err and len(err.splitlines()) == 1
    assert desk.traffic() == before
    assert "preview" not in run.revisions[run.made[-1]].labels
    run.unready = lambda _: None
    assert desk.preview()[0] == 0


def test_what_killed_a_release_before_it_was_ready_is_taken_back_by_the_next(cloud: Cloud) -> None:
    cloud.run.unready = of_version("2", KINDS["start-up probe"][0])
    cloud.run.faults.append((lambda r: r.method == "PATCH" and len(cloud.run.made) == 2, 503, 2))
    with pytest.raises(StageError, match="rollback failed too"):
        cloud.deploy(retry_timeout_s=0.0)
    cloud.run.faults.clear()
    assert cloud.run.split == {cloud.run.made[0]: 100}
    cloud.run.unready = lambda _: None
    cloud.deploy(image="registry/serving@sha256:" + "3" * 64)
    assert cloud.shop.crowned == "2"
    assert not cloud.run.pinned
