"""kill -9 at every step of a promotion: the next command finds out how far it came, and all agree again."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from components.artifacts.model_version import CHAMPION
from components.deploy.cloud_run import CloudRunService
from components.deploy.ledger import History, Ledger
from components.deploy.promotion import promote, rollback
from components.platform.registry import Registry
from serving.platform.errors import StageError
from tests.components.deploy.conftest import Shop
from tests.components.deploy.test_cloud_run import Cloud
from tests.fakes.servers import BundleServers
from tests.killing import killed_at

EFFECTS = ((Ledger, "append"), (CloudRunService, "update"), (Registry, "point"), (Registry, "mark"))
"""Everything that a promotion changes in the world; a kill comes before and after each call of them."""


def all_agree(cloud: Cloud, champion: str) -> None:
    """Alias, traffic, template and ledger say the same, and nothing is under way."""
    shop, run = cloud.shop, cloud.run
    assert shop.crowned == champion
    (serving,) = run.split
    assert run.environment(serving)["MODEL_VERSION"] == champion
    assert run.environment(run.made[-1])["MODEL_VERSION"] == champion
    assert not run.pinned
    lines = Ledger(shop.ledger_path).lines()
    assert History(lines, shop.context.model_name).unfinished == []
    promoted = [line.to_version for line in lines if line.outcome == "promoted"]
    assert (promoted or ["1"])[-1] == champion


@pytest.fixture
def clouds(shop: Shop, servers: BundleServers) -> Iterator[Callable[[], Cloud]]:
    """Makes services on which version 1 serves."""
    made: list[Cloud] = []

    def fresh() -> Cloud:
        shop.registry.point(CHAMPION, "1")
        Path(shop.ledger_path).unlink(missing_ok=True)
        shop.registry.mark("rolled_back", set())
        made.append(Cloud(shop, servers))
        return made[-1]

    yield fresh
    for cloud in made:
        cloud.run.close()


def at_every_step(
    clouds: Callable[[], Cloud], prepare: bool, verb: str, after: str, repeats: int, stride: int = 1
) -> int:
    """Kill `verb` at each step; after the next command all must agree. Returns how many steps there were."""
    step = stride - 1
    while True:
        for _ in range(repeats):
            cloud = clouds()
            uri, name = cloud.shop.context.tracking_uri, cloud.shop.context.model_name

            def command(which: str, cloud: Cloud = cloud, uri: str = uri, name: str = name) -> None:
                if which == "promote":
                    promote(uri, name, "2", cloud.config(), "better", "ada")
                else:
                    rollback(uri, name, cloud.config(), "worse", "ada")

            # the connections of the servers' and the registry's clients belong to one process each
            cloud.servers.url(cloud.shop.bundles["1"], "1"), cloud.servers.url(cloud.shop.bundles["2"], "2")
            if prepare:
                command("promote")
            if not killed_at(step, partial(command, verb), EFFECTS):
                return step // stride
            between = cloud.shop.crowned
            try:
                command(after)
            except StageError as error:
                assert "knows no champion" in str(error)
                all_agree(cloud, between or "")
            else:
                all_agree(cloud, "2" if after == "promote" else "1")
        step += stride


def test_a_promotion_killed_at_any_step_is_finished_by_a_rollback(clouds: Callable[[], Cloud]) -> None:
    # after each: the mark, begun, three updates of the service, the alias, the outcome, the mark
    assert at_every_step(clouds, prepare=False, verb="promote", after="rollback", repeats=1, stride=2) >= 7


@pytest.mark.system
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("prepare", "verb", "after"),
    [(False, "promote", "promote"), (True, "rollback", "rollback"), (True, "rollback", "promote")],
)
def test_twenty_kills_at_every_step(clouds: Callable[[], Cloud], prepare: bool, verb: str, after: str) -> None:
    assert at_every_step(clouds, prepare, verb, after, repeats=20) >= 12
