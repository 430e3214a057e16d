"""Previews, releases of a new image and rollbacks on Cloud Run, as the workflows ask for them: by `aidetect`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.cloud import run_v2

from components.artifacts.model_version import CHALLENGER
from pipelines.cli.app import run_app
from tests.components.deploy.conftest import Shop
from tests.components.deploy.test_cloud_run import Cloud
from tests.fakes.google_rest import Request
from tests.fakes.servers import BundleServers

IMAGE = "registry/serving@sha256:" + "1" * 64
OTHER = "registry/serving@sha256:" + "2" * 64


@dataclass
class Desk:
    """`aidetect` in front of the fake service."""

    cloud: Cloud
    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def summary(self) -> Path:
        return self.folder / "summary.md"

    def __call__(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one verb."""
        context = self.cloud.shop.context
        settings: dict[str, Any] = {
            "paths.workspace": self.folder,
            "tracking.uri": context.tracking_uri,
            "tracking.model_name": context.model_name,
        }
        deploy = self.cloud.config().model_dump(exclude_defaults=True)
        settings |= {f"deploy.{key}": value for key, value in deploy.items()}
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self.capsys.readouterr()
        code = run_app([verb, *sets, *arguments])
        out, err = self.capsys.readouterr()
        return code, out, err

    def preview(self, tag: str = "pr-7", image: str = IMAGE) -> tuple[int, str, str]:
        return self("deploy", "--image", image, "--tag", tag, "--no-traffic", "--json")

    def traffic(self) -> list[tuple[str, int, str]]:
        """(revision, empty where it follows the latest; percent; tag) of each target."""
        return [(t.revision, t.percent, t.tag) for t in self.cloud.run.service.traffic]

    def image(self, revision: str) -> str:
        return self.cloud.run.revisions[revision].containers[0].image


@pytest.fixture
def desk(shop: Shop, servers: BundleServers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    shop.registry.point(CHALLENGER, shop.challenger.version)
    cloud = Cloud(shop, servers)
    yield Desk(cloud, tmp_path, capsys)
    cloud.run.close()
    shop.registry.point(CHALLENGER, shop.challenger.version)


def test_a_preview_leaves_users_the_template_the_alias_and_the_ledger_as_they_were(desk: Desk) -> None:
    run = desk.cloud.run
    old = run.made[0]
    code, out, err = desk.preview()
    assert code == 0, err
    made = json.loads(out)
    assert made["url"] == desk.cloud.servers.url(desk.cloud.shop.bundles["1"], "1")
    assert (made["tag"], made["version"], made["image"]) == ("pr-7", "1", IMAGE)
    assert desk.image(made["revision"]) == IMAGE
    # users never left the old revision, also while the preview was the newest one
    for request in run.updates:
        shares = {t.get("revision", "latest"): t.get("percent", 0) for t in request.body["traffic"]}
        assert shares.get(made["revision"], 0) == 0
        assert {name for name, share in shares.items() if share} <= {old, "latest"}
    assert desk.traffic() == [("", 100, ""), (made["revision"], 0, "pr-7")]
    newest = run.made[-1]
    assert newest != made["revision"]
    assert run.split == {newest: 100}
    assert desk.image(newest) == desk.image(old)
    assert run.environment(newest) == run.environment(old)
    assert not run.revisions[newest].labels
    assert desk.cloud.shop.crowned == "1"
    assert desk.cloud.shop.ledger == []

    code, out, err = desk("smoke", made["url"])
    assert (code, err) == (0, "")
    assert "answers as version 1" in out


def test_a_second_commit_takes_the_tag_and_other_previews_keep_theirs(desk: Desk) -> None:
    first = json.loads(desk.preview("pr-7")[1])["revision"]
    other = json.loads(desk.preview("pr-8")[1])["revision"]
    second = json.loads(desk.preview("pr-7", OTHER)[1])["revision"]
    assert first != second
    assert desk.traffic() == [("", 100, ""), (other, 0, "pr-8"), (second, 0, "pr-7")]

    # nor does a deployment take them away
    assert desk("deploy", "--image", OTHER)[0] == 0
    assert desk.traffic() == [("", 100, ""), (other, 0, "pr-8"), (second, 0, "pr-7")]
    assert desk.cloud.shop.crowned == "1"

    assert desk("deploy", "--remove-tag", "pr-7")[0] == 0
    code, out, _ = desk("deploy", "--remove-tag", "pr-7")
    assert (code, out) == (0, "no revision has the tag pr-7; nothing to do\n")
    assert desk.traffic() == [("", 100, ""), (other, 0, "pr-8")]


def test_a_split_by_name_comes_back_beside_the_tag(desk: Desk) -> None:
    run = desk.cloud.run
    old = run.made[0]
    run.service.traffic = [run_v2.TrafficTarget(revision=old, percent=100, type_=2)]
    run._settle()
    code, out, err = desk.preview()
    assert code == 0, err
    assert desk.traffic() == [(old, 100, ""), (json.loads(out)["revision"], 0, "pr-7")]


def assert_as_before(desk: Desk) -> None:
    """Users follow the newest revision, which is the old one again, and nothing has the tag."""
    run = desk.cloud.run
    assert desk.traffic() == [("", 100, "")]
    assert desk.image(run.made[-1]) == desk.image(run.made[0])
    assert not run.revisions[run.made[-1]].labels
    assert desk.cloud.shop.crowned == "1"
    assert desk.cloud.shop.ledger == []


def test_a_preview_that_fails_its_smoke_test_is_taken_back(desk: Desk) -> None:
    assert desk.preview()[0] == 0
    desk.cloud.answers["1"] = (desk.cloud.shop.bundles["2"], "1")
    code, out, err = desk.preview(image=OTHER)
    assert (code, out) == (1, "")
    assert "smoke test: golden/" in err
    assert len(err.splitlines()) == 1
    assert_as_before(desk)


@pytest.mark.parametrize("operation", ["/operations/1$", "/operations/2$", "/operations/3$"])
def test_a_lost_answer_of_any_update_is_taken_back(desk: Desk, operation: str) -> None:
    desk.cloud.run.fail("GET", operation, 404, times=1)
    code, _, err = desk.preview()
    assert code == 1
    assert "404" in err
    assert_as_before(desk)


def test_a_release_made_meanwhile_is_left_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run, answer = desk.cloud.run, desk.cloud.run.route
    old = run.made[0]

    def release_first(request: Request) -> dict[str, Any]:
        if request.method == "GET" and len(run.updates) == 1 and run.made[-1] != "v-next":
            later = run_v2.RevisionTemplate(run_v2.RevisionTemplate.pb(run.revisions[old]))
            later.revision, later.containers[0].image = "v-next", OTHER
            run.service.template = later
            run._revise()
            shares = [
                run_v2.TrafficTarget(revision=name, percent=n, type_=2) for name, n in ((old, 90), ("v-next", 10))
            ]
            run.service.traffic = [*shares, *(target for target in run.service.traffic if target.tag)]
            run._settle()
        return answer(request)

    monkeypatch.setattr(run, "route", release_first)
    code, out, err = desk.preview()
    assert code == 0, err
    made = json.loads(out)["revision"]
    assert run.made == [old, made, "v-next"]
    assert desk.traffic() == [(old, 90, ""), ("v-next", 10, ""), (made, 0, "pr-7")]


def test_nothing_is_based_on_a_preview_that_was_cut_short(desk: Desk) -> None:
    run = desk.cloud.run
    run.service.template.labels["preview"] = "pr-7"
    for arguments in ([], ["--image", IMAGE, "--tag", "pr-8", "--no-traffic"]):
        code, _, err = desk("deploy", *arguments)
        assert code == 1
        assert "is the preview pr-7, under way or cut short" in err
    assert run.updates == []
    code, _, err = desk("deploy", "--image", IMAGE)
    assert code == 0, err
    assert "preview" not in run.revisions[run.made[-1]].labels


def test_a_preview_waits_for_a_rollout(desk: Desk) -> None:
    run = desk.cloud.run
    run.service.traffic = [*run.service.traffic, run_v2.TrafficTarget(revision=run.made[0], tag="candidate", type_=2)]
    code, _, err = desk.preview()
    assert code == 1
    assert "a deployment of Cloud Run service detector is under way" in err
    assert run.updates == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "registry/serving:latest"], "a tag can move"),
        (["--image", IMAGE, "--tag", "pr-7"], "--tag and --no-traffic belong together"),
        (["--no-traffic"], "--tag and --no-traffic belong together"),
        (["--tag", "pr-7", "--no-traffic"], "a preview needs --image"),
        (["--image", IMAGE, "--remove-tag", "pr-7"], "--remove-tag goes alone"),
        (["--image", IMAGE, "--tag", "PR/7", "--no-traffic"], "lower-case letters"),
        (["--image", IMAGE, "--tag", "candidate", "--no-traffic"], "not candidate"),
        (["--remove-tag", "pr-7", "--set", "deploy.target=local"], "previews need deploy.target cloud_run"),
        (["--summary", "/nowhere/summary.md"], "/nowhere/summary.md: no such file or directory; check the path"),
    ],
)
def test_wrong_requests_are_one_line_and_send_nothing(desk: Desk, arguments: list[str], message: str) -> None:
    code, _, err = desk("deploy", *arguments)
    assert code == 1
    assert message in err
    assert len(err.splitlines()) == 1
    assert desk.cloud.run.requests == []


def test_a_release_of_code_brings_the_champion_and_no_challenger_that_was_held_back(desk: Desk) -> None:
    run, shop = desk.cloud.run, desk.cloud.shop
    code, out, err = desk("deploy", "--image", IMAGE, "--summary", str(desk.summary))
    assert code == 0, err
    assert "version 1 is champion (before: version 1)" in out
    assert (shop.crowned, desk.image(run.made[-1])) == ("1", IMAGE)
    code, out, err = desk("deploy", "--summary", str(desk.summary))
    assert code == 0, err
    assert "version 2 is champion (before: version 1)" in out
    assert desk.image(run.made[-1]) == IMAGE
    code, _, err = desk("rollback", "--why", "slow", "--summary", str(desk.summary))
    assert code == 0, err
    assert shop.crowned == "1"
    code, out, err = desk("deploy", "--image", OTHER, "--json")
    assert (code, json.loads(out)["version"]) == (0, "1"), err
    assert [(entry.from_version, entry.to_version) for entry in shop.ledger] == [
        ("1", "1"),
        ("1", "2"),
        ("2", "1"),
        ("1", "1"),
    ]
    assert desk.image(run.made[-1]) == OTHER
    assert run.environment(run.made[-1])["MODEL_VERSION"] == "1"

    name = shop.context.model_name
    told = [line for line in desk.summary.read_text().splitlines() if line.startswith(("## ", "On "))]
    assert told[::2] == [f"## Version {version} of {name} serves" for version in ("1", "2", "1")]
    for line, words in zip(
        told[1::2], ("as before, in a new revision", "instead of version 1", "instead of version 2"), strict=True
    ):
        assert line.startswith("On cloud_run, ")
        assert words in line


def test_a_deployment_that_fails_says_so_in_the_summary(desk: Desk) -> None:
    desk.cloud.answers["2"] = (desk.cloud.shop.bundles["1"], "1")
    code, _, err = desk("deploy", "--summary", str(desk.summary))
    assert code == 1
    assert "## aidetect deploy failed" in desk.summary.read_text()
    assert err.removeprefix("error: ").strip() in desk.summary.read_text()


def test_smoke_wants_the_champion_and_its_answers(desk: Desk, inverted_bundle: Path) -> None:
    servers, bundles = desk.cloud.servers, desk.cloud.shop.bundles
    for url, message in (
        (servers.url(bundles["2"], "2"), "version 2 answers, expected 1"),
        (servers.url(bundles["2"], "1"), "smoke test: golden/"),
        (servers.url(inverted_bundle, "1"), "labels are inverted"),
    ):
        code, out, err = desk("smoke", url)
        assert (code, out) == (1, "")
        assert message in err
        assert len(err.splitlines()) == 1
    code, _, err = desk("smoke", "http://127.0.0.1:9", "--set", "deploy.smoke_timeout_s=0.5")
    waits, failed = err.splitlines()
    assert code == 1 and waits.endswith("asking again for up to 0.5 s")
    assert "no answer to golden/" in failed
    code, _, err = desk("smoke", "127.0.0.1:9")
    assert (code, err) == (
        1,
        "error: 127.0.0.1:9: no address of a service; give it as http://HOST:PORT or https://HOST\n",
    )
