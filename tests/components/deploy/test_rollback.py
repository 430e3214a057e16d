"""A rollback takes back what the latest promotion changed: the version, the serving image, or both."""

from collections.abc import Iterator

import pytest

from components.deploy.promotion import rollback
from serving.platform.errors import StageError
from tests.components.deploy.conftest import Shop
from tests.components.deploy.test_cloud_run import Cloud
from tests.fakes.servers import BundleServers

NEW, NEWER = ("registry/serving@sha256:" + digit * 64 for digit in "12")


@pytest.fixture
def cloud(shop: Shop, servers: BundleServers) -> Iterator[Cloud]:
    made = Cloud(shop, servers)
    yield made
    made.run.close()


def take_back(cloud: Cloud) -> None:
    context = cloud.shop.context
    rollback(context.tracking_uri, context.model_name, cloud.config(), "cd: smoke test failed", "ada")


def served(cloud: Cloud) -> tuple[str, str]:
    """Version and image that users get."""
    (revision,) = cloud.run.split
    return cloud.run.environment(revision)["MODEL_VERSION"], cloud.run.revisions[revision].containers[0].image


def test_an_image_released_for_the_same_champion_is_taken_back(cloud: Cloud) -> None:
    before = served(cloud)
    cloud.deploy(cloud.shop.champion, image=NEW)
    assert served(cloud) == ("1", NEW)
    take_back(cloud)
    assert served(cloud) == before
    assert (cloud.shop.crowned, cloud.run.pinned) == ("1", False)
    assert [(e.action, e.from_version, e.to_version, e.to_image) for e in cloud.shop.ledger] == [
        ("deploy", "1", "1", NEW),
        ("rollback", "1", "1", before[1]),
    ]


def test_a_version_and_an_image_that_came_together_go_together(cloud: Cloud) -> None:
    before = served(cloud)
    cloud.deploy(image=NEW)
    assert served(cloud) == ("2", NEW)
    take_back(cloud)
    assert served(cloud) == before
    assert cloud.shop.crowned == "1"


def test_a_rollback_of_a_version_keeps_the_image_it_came_on(cloud: Cloud) -> None:
    cloud.deploy(cloud.shop.champion, image=NEW)
    cloud.deploy()
    assert served(cloud) == ("2", NEW)
    take_back(cloud)
    assert served(cloud) == ("1", NEW)


def test_an_image_is_taken_back_on_the_version_that_it_was_released_for(cloud: Cloud) -> None:
    cloud.deploy(image=NEW)
    cloud.deploy(cloud.shop.challenger, image=NEWER)
    take_back(cloud)
    assert served(cloud) == ("2", NEW)
    assert cloud.shop.crowned == "2"


def test_without_a_promotion_there_is_nothing_to_take_back(cloud: Cloud) -> None:
    before = served(cloud)
    with pytest.raises(StageError, match=r"knows no champion of .* before version 1; bring .* aidetect promote NUMBER"):
        take_back(cloud)
    assert served(cloud) == before
    assert cloud.run.updates == []
