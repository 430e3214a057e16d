"""Local deployment: real server processes booted from the registry, golden images over HTTP."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from components.artifacts.deployment import DEPLOYMENT_JSON, Deployment
from components.artifacts.model_version import write_model_version
from components.deploy.config import DeployConfig
from components.deploy.ledger import Ledger
from components.deploy.promotion import Reason, deploy_version, promote, rollback
from components.deploy.smoke import HttpProber
from components.deploy.stage import deploy
from serving.platform.errors import AidetectError, StageError
from tests.components.deploy.conftest import Shop
from tests.fakes.servers import free_port
from tests.interrupted import InterruptedStart, all_gone

REASON = Reason("ada", "try")


def config(shop: Shop, **changes: object) -> DeployConfig:
    return DeployConfig.model_validate({"ledger_path": shop.ledger_path} | changes)


def server_processes() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and "-m serving" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]


@pytest.fixture(autouse=True)
def no_server_stays(shop: Shop) -> Iterator[None]:
    before = {process.pid for process in server_processes()}
    yield
    assert {process.pid for process in server_processes()} <= before


def test_stage_promotes_and_rollback_brings_the_previous_back(shop: Shop, tmp_path: Path) -> None:
    write_model_version(tmp_path / "version", shop.challenger)
    deploy(tmp_path / "version", config(shop), shop.context, tmp_path / "deployment")
    done = Deployment.model_validate_json((tmp_path / "deployment" / DEPLOYMENT_JSON).read_text())
    assert (done.version, done.previous, done.target, done.pid) == ("2", "1", "local", None)
    assert done.smoke.startswith("4 golden images replayed")
    assert shop.crowned == "2"

    back = rollback(shop.context.tracking_uri, shop.context.model_name, config(shop), "false alarms", "grace")
    assert (back.version, shop.crowned) == ("1", "1")
    first, second = shop.ledger
    assert (first.who, first.action, first.from_version, first.to_version) == ("pipeline run run-1", "deploy", "1", "2")
    assert (second.who, second.action, second.why) == ("grace", "rollback", "false alarms")
    assert [entry.outcome for entry in shop.ledger] == ["promoted", "promoted"]

    with pytest.raises(StageError, match=r"knows no champion .* before version 1"):
        Path(shop.ledger_path).unlink()
        rollback(shop.context.tracking_uri, shop.context.model_name, config(shop), "again")


def test_server_left_running_answers_and_ends_on_sigterm(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # its model cache outlives the deployment
    port = free_port()
    done = deploy_version(shop.challenger, config(shop, keep_running=True, port=port), REASON)
    assert done.url == f"http://127.0.0.1:{port}"
    assert done.pid is not None
    try:
        assert HttpProber(done.url, 10).ready()
        assert Path(shop.ledger_path).with_name("server.log").stat().st_size > 0
        with pytest.raises(StageError, match=f"port {port} of 127.0.0.1 cannot be used"):
            deploy_version(shop.champion, config(shop, port=port), REASON)
        assert shop.crowned == "2"
        assert shop.ledger[-1].outcome == "rolled_back"
    finally:
        os.kill(done.pid, signal.SIGTERM)
        assert os.waitpid(done.pid, 0)[1] == 0


def test_port_in_use_is_one_line_and_changes_nothing(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StageError, match=rf"port {port} .* set deploy.port \(0 picks a free one\)") as caught:
            deploy_version(shop.challenger, config(shop, port=port), REASON)
    assert "\n" not in str(caught.value)
    assert shop.crowned == "1"
    assert shop.ledger[-1].reason == str(caught.value)


def test_server_that_is_never_ready_is_stopped(shop: Shop) -> None:
    with pytest.raises(StageError, match=r"was not ready within 0.01 s"):
        deploy_version(shop.challenger, config(shop, ready_timeout_s=0.01), REASON)
    assert shop.crowned == "1"
    assert shop.ledger[-1].outcome == "rolled_back"


def test_damaged_files_in_the_registry_are_refused_before_any_server(shop: Shop, tmp_path: Path) -> None:
    (model,) = shop.folder.glob(f"artifacts/*/artifacts/bundle-{shop.challenger.bundle_digest[:12]}/model.onnx")
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(StageError, match=r"models:/.*/2 cannot be deployed: .*model.onnx: sha256"):
            deploy_version(shop.challenger, config(shop), REASON)
    finally:
        model.write_bytes(whole)
    assert shop.crowned == "1"


def test_version_whose_verdict_was_edited_in_the_registry_is_refused(shop: Shop) -> None:
    (verdict,) = shop.folder.glob(
        f"artifacts/*/artifacts/bundle-{shop.challenger.bundle_digest[:12]}/release/verdict.json"
    )
    whole = verdict.read_text()
    verdict.write_text(whole.replace('"passed":true', '"passed":false').replace('"passed": true', '"passed": false'))
    try:
        with pytest.raises(StageError, match=r"cannot be deployed: .*release record of version 2 .* was changed"):
            promote(shop.context.tracking_uri, shop.context.model_name, "2", config(shop), "please")
    finally:
        verdict.write_text(whole)
    assert shop.crowned == "1"


def test_unknown_version_names_those_there_are(shop: Shop) -> None:
    with pytest.raises(StageError, match=r"has no version 9 in .*; it has: 2, 1"):
        promote(shop.context.tracking_uri, shop.context.model_name, "9", config(shop), "please")


def test_a_document_of_another_version_than_its_number_s_is_refused(shop: Shop) -> None:
    first = shop.registry.describe("1")
    for edit in ({"uri": first.uri, "bundle_digest": first.bundle_digest}, {"uri": first.uri}):
        edited = shop.challenger.model_copy(update=edit)
        with pytest.raises(StageError, match=r"^model_version.json says .*/2: it was edited") as caught:
            deploy_version(edited, config(shop), REASON)
        assert "\n" not in str(caught.value)
    assert shop.crowned == "1" and shop.ledger == []


def test_ledger_that_cannot_be_written_stops_before_anything(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match=r"ledger\.jsonl: .*set deploy.ledger_path"):
        deploy_version(shop.challenger, config(shop, ledger_path=str(tmp_path / "file" / "ledger.jsonl")), REASON)
    assert shop.crowned == "1"


def test_second_promotion_at_the_same_time_is_refused(shop: Shop) -> None:
    ledger = Ledger(shop.ledger_path)
    with ledger.exclusive(0), pytest.raises(AidetectError, match="another promotion is under way"):
        deploy_version(shop.challenger, config(shop, lock_wait_s=0), REASON)
    assert shop.crowned == "1"


def test_a_promotion_waits_for_the_one_under_way(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool:
        with Ledger(shop.ledger_path).exclusive(0):
            second = pool.submit(deploy_version, shop.challenger, config(shop), REASON)
            with pytest.raises(TimeoutError):
                second.result(0.5)
            assert shop.crowned == "1"
        assert second.result().version == shop.crowned == "2"


def test_sigterm_at_the_moment_the_server_starts_leaves_nothing(
    shop: Shop, interrupted_start: InterruptedStart
) -> None:
    servers = interrupted_start(signal.SIGTERM)
    with pytest.raises(StageError, match="stopped by SIGTERM"):
        deploy_version(shop.challenger, config(shop), REASON)
    assert all_gone(servers)
    assert shop.crowned == "1"


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_deployment_leaves_no_server(shop: Shop, tmp_path: Path, kill: signal.Signals) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pipelines", "deploy"),
            *("--set", f"tracking.uri={shop.context.tracking_uri}", "--set", f"deploy.ledger_path={shop.ledger_path}"),
            *("--set", f"paths.workspace={tmp_path}"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        # slower than who watches it: on a busy machine it was done before it was seen
        preexec_fn=lambda: os.nice(10),
    )
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    try:
        children: list[psutil.Process] = []
        while process.poll() is None and not children:
            time.sleep(0.05)
            found = psutil.Process(process.pid).children()
            # a child that has ended just now has no command line any more
            with contextlib.suppress(psutil.Error):
                children = [child for child in found if "serving" in " ".join(child.cmdline())]
        process.send_signal(kill)
        said = process.communicate()[1]
    finally:
        watchdog.cancel()
    assert children and not psutil.wait_procs(children, timeout=60)[1]
    assert shop.crowned == "1"
    if kill == signal.SIGTERM:
        assert process.returncode == 1
        assert said.splitlines()[-1].startswith("error: stopped by SIGTERM")
        assert shop.ledger[-1].reason.startswith("stopped by SIGTERM")
    else:
        assert shop.ledger == []
        deploy_version(shop.challenger, config(shop), REASON)
        assert [entry.outcome for entry in shop.ledger] == ["rolled_back", "promoted"]
        assert shop.ledger[0].reason.startswith("cut short")
    assert not (tmp_path / "deployment").exists()
