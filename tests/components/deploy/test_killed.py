"""kill -9 at every step of a promotion: the next command finds out how far it came, and all agree again."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.model_version import CHAMPION
from components.deploy.cloud_run import CloudRunService
from components.deploy.ledger import History, Ledger
from components.deploy.promotion import promote, rollback
from components.platform.registry import ROLLED_BACK_TAG, Registry
from serving.platform.errors import StageError
from tests.components.deploy.test_cloud_run import Cloud, cloud  # noqa: F401 - a fixture
from tests.killing import killed_at

EFFECTS = ((Ledger, "append"), (CloudRunService, "update"), (Registry, "point"), (Registry, "mark"))
"""Everything that a promotion changes in the world; a kill comes before and after each call of them."""


def all_agree(found: Cloud, champion: str) -> None:
    """Alias, traffic, template and ledger say the same, and nothing is under way."""
    shop, run = found.shop, found.run
    assert shop.crowned == champion
    (serving,) = run.split
    assert run.environment(serving)["MODEL_VERSION"] == champion
    assert run.environment(run.made[-1])["MODEL_VERSION"] == champion
    assert not run.pinned
    lines = Ledger(shop.ledger_path).lines()
    assert History(lines, shop.context.model_name).unfinished == []
    promoted = [line.to_version for line in lines if line.outcome == "promoted"]
    assert (promoted or ["1"])[-1] == champion


@dataclass
class Days:
    """One service, and the day before to begin again with: registry, ledger and service as they were then."""

    cloud: Cloud
    memory: Callable[[], dict[str, Any]]

    def command(self, which: str) -> None:
        """Promote version 2, or roll back."""
        uri, name = self.cloud.shop.context.tracking_uri, self.cloud.shop.context.model_name
        if which == "promote":
            promote(uri, name, "2", self.cloud.config(), "better", "ada")
        else:
            rollback(uri, name, self.cloud.config(), "worse", "ada")

    def again(self, before: dict[str, Any]) -> None:
        """Everything as it was when `before` was remembered."""
        shop, ledger = self.cloud.shop, Path(self.cloud.shop.ledger_path)
        shop.registry.point(CHAMPION, before["champion"])
        shop.registry.mark(ROLLED_BACK_TAG, set())
        if before["ledger"] is None:
            ledger.unlink(missing_ok=True)
        else:
            ledger.write_bytes(before["ledger"])
        vars(self.cloud.run).update(copy.deepcopy(before["service"]))


@pytest.fixture
def days(cloud: Cloud) -> Days:  # noqa: F811 - a fixture
    """The service on which version 1 serves; both versions' servers run."""
    shop, ledger = cloud.shop, Path(cloud.shop.ledger_path)
    shop.registry.mark(ROLLED_BACK_TAG, set())
    for version in ("1", "2"):  # started by this process, which the killed ones leave behind
        cloud.servers.url(shop.bundles[version], version)

    def memory() -> dict[str, Any]:
        state = {name: getattr(cloud.run, name) for name in ("service", "revisions", "made", "operations")}
        written = ledger.read_bytes() if ledger.is_file() else None
        return {"champion": shop.crowned, "ledger": written, "service": copy.deepcopy(state)}

    return Days(cloud, memory)


def at_every_step(days: Days, prepare: bool, verb: str, after: str, repeats: int, stride: int = 1) -> int:
    """Kill `verb` at each step; after the next command all must agree. Returns how many steps there were."""
    if prepare:
        days.command("promote")
    step, before = stride - 1, days.memory()
    while True:
        for _ in range(repeats):
            days.again(before)
            if not killed_at(step, partial(days.command, verb), EFFECTS):
                return step // stride
            between = days.cloud.shop.crowned
            try:
                days.command(after)
            except StageError as error:
                assert "knows no champion" in str(error)
                all_agree(days.cloud, between or "")
            else:
                all_agree(days.cloud, "2" if after == "promote" else "1")
        print(f"{verb} killed at step {step}, {repeats} times: all agree after {after}")
        step += stride


def test_a_promotion_killed_at_any_step_is_finished_by_a_rollback(days: Days) -> None:
    # after each: the mark, begun, three updates of the service, the alias, the outcome, the mark
    assert at_every_step(days, prepare=False, verb="promote", after="rollback", repeats=1, stride=2) >= 7


@pytest.mark.system
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("prepare", "verb", "after"),
    [(False, "promote", "promote"), (True, "rollback", "rollback"), (True, "rollback", "promote")],
)
def test_twenty_kills_at_every_step(days: Days, prepare: bool, verb: str, after: str) -> None:
    assert at_every_step(days, prepare, verb, after, repeats=20) >= 12
