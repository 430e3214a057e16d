"""Shifted traffic to a dispatch: instances, Monitoring, Pub/Sub, Cloud Run's check, receiver and GitHub as one."""

import datetime
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pipelines.retrain import GOOGLE_MONITORING, gather
from serving.platform.errors import RetrainError
from tests.fakes.gcs import FakeGcs
from tests.fakes.google_sign_in import Front, Issuer, Quiet, issuing, pem, serving, unsigned
from tests.fakes.monitoring import Monitoring, prometheus
from tests.fakes.policy import Policy, plan_of
from tests.fakes.servers import free_port
from tests.serving.processes import environment
from tests.serving.test_drift import WINDOW, healthy, send, shifted
from tests.serving.test_evidence import NAMES, process
from tests.untraced import untraced

RETRAIN = "service aidetect-retrain"


class GitHub(Quiet):
    """Takes dispatches of the training workflow."""

    taken: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.read())
        repository = "/repos/example/ai-product-photo-detector"
        known = self.path == f"{repository}/actions/workflows/model-training.yml/dispatches"
        if known and self.headers["Authorization"] == "Bearer of-the-secret":
            self.taken.append(body)
            self.reply(204, b"", {})
        else:
            self.reply(404, b"{}", {})


@pytest.fixture
def buckets() -> Iterator[tuple[FakeGcs, FakeGcs]]:
    """Cloud Storage as the service sees it, and as the receiver does."""
    made = FakeGcs(), FakeGcs()
    for fake, account in zip(made, ("serving", "retrain"), strict=True):
        fake.policy = Policy(plan_of("prod"), aliases=NAMES)
        fake.policy.as_account(account, "alarm")
    yield made
    for fake in made:
        fake.close()


def receiver(url: str, github: str, bucket: FakeGcs, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The receiver as the plan starts it, on a port of this machine; and that port."""
    plan = plan_of("prod")
    (service,) = [s for s in plan.of("google_cloud_run_v2_service") if s["name"] == "aidetect-retrain"]
    container = service["template"][0]["containers"][0]
    port, given = free_port(), container["args"]
    command = [{"python3": sys.executable, "0.0.0.0": "127.0.0.1", "8080": str(port)}.get(part, part) for part in given]
    command[-1] = url  # of Managed Service for Prometheus; how it is signed in to is another test
    command[command.index("aidetect")] = str(Path(sys.executable).parent / "aidetect")
    variables = {found["name"]: found["value"] for found in container["env"] if found["value"]}
    variables |= {"GITHUB_TOKEN": "of-the-secret", "GITHUB_API_URL": github, "STORAGE_EMULATOR_HOST": bucket.url}
    with (folder / "receiver.log").open("wb") as log:
        running = subprocess.Popen(
            command, env=untraced({**environment(), **variables}), stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5, trust_env=False).status_code == 200:
                return running, port
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError((folder / "receiver.log").read_text())


@pytest.mark.system
def test_shifted_traffic_on_one_instance_becomes_one_dispatch(
    buckets: tuple[FakeGcs, FakeGcs], toy_bundle: Path, tmp_path: Path
) -> None:
    policy = Policy(plan_of("prod"))
    taken: list[dict[str, Any]] = []
    invokers = {b.member.partition(":")[2] for b in policy.plan.bindings if b.resource == RETRAIN}
    with ExitStack() as stack:
        moved, calm = (
            stack.enter_context(process(toy_bundle, buckets[0], tmp_path / name)) for name in ("moved", "calm")
        )
        issuer = stack.enter_context(issuing())
        github = stack.enter_context(serving(GitHub, taken=taken))
        monitoring = Monitoring(policy, issuer, [str(moved.base_url).rstrip("/"), str(calm.base_url).rstrip("/")])
        url = stack.enter_context(prometheus(monitoring))
        running, port = receiver(url, github, buckets[1], tmp_path)
        stack.callback(running.wait, 20)
        stack.callback(running.terminate)
        refused: list[str] = []
        behind = f"http://127.0.0.1:{port}"
        front = stack.enter_context(serving(Front, issuer=issuer, invokers=invokers, behind=behind, refused=refused))
        for token in ("", unsigned(issuer.token(next(iter(invokers)), front)), issuer.token("me@example.test", front)):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            assert httpx.post(f"{front}/alerts", json={}, headers=headers, trust_env=False).status_code == 403
        for seed in (100, 200, 300):
            send(moved, shifted(WINDOW, seed=seed))
            send(calm, healthy(WINDOW, seed=seed))
            for client in (moved, calm):
                client.get("/drift")
            monitoring.scrape()
            monitoring.evaluate(front)
        for _ in range(120):  # a window is judged by a thread of the server's
            if not monitoring.told:
                time.sleep(0.5)
            monitoring.scrape()
            monitoring.evaluate(front)
            if monitoring.told:
                break
        log = (tmp_path / "receiver.log").read_text()
        assert monitoring.told == ["open"], monitoring.query("max(aidetect_drift_alert)")
        assert monitoring.answers == [200, 200], log  # brought twice, decided twice
    assert [found["ref"] for found in taken] == ["main"], log
    reason = taken[0]["inputs"]["reason"]
    assert re.fullmatch(r"drift: drift alarm on version \w+: largest distances: .*score_psi \d.*", reason), reason
    assert len(refused) == 3
    lines = buckets[1].objects["example-project-aidetect-pipelines/retrain.jsonl"].splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["starting", "dispatched"]


def certified(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for `host`, and the file of the authority that a client must trust."""
    issuer = Issuer()
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(issuer.key.public_key())
    built = built.serial_number(2).not_valid_before(now - datetime.timedelta(days=1))
    built = built.not_valid_after(now + datetime.timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = folder / "monitoring.crt"
    certificate.write_bytes(built.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "monitoring.key").write_text(pem(issuer.key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / "monitoring.key")
    return context, certificate


def test_managed_prometheus_is_signed_in_to_and_a_missing_grant_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certified(tmp_path, GOOGLE_MONITORING)
    receives = plan_of("prod").account("retrain")
    with issuing() as issuer:
        account = receives.removeprefix("serviceAccount:")
        key = issuer.service_account(tmp_path, account)
        monitoring = Monitoring(Policy(plan_of("prod")), issuer, [])
        monitoring.readers = {issuer.access(account): receives}
        labels = {"instance": "a"}
        monitoring.samples = [
            ("aidetect_drift_alert", labels, 2.0),
            ("aidetect_drift_score", {**labels, "signal": "brightness"}, 0.4),
            ("aidetect_drift_score", {**labels, "signal": "width"}, 0.01),
            ("aidetect_model_info", {**labels, "version": "7"}, 1.0),
            ("aidetect_model_created_timestamp_seconds", labels, time.time() - 86_400),
            ("aidetect_declared_recall", {**labels, "bound": "high"}, 0.75),
        ]
        with prometheus(monitoring, context) as url:
            monkeypatch.setenv("SSL_CERT_FILE", str(authority))
            monkeypatch.setenv("NO_PROXY", "*")
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
            real, names = socket.getaddrinfo, (GOOGLE_MONITORING, GOOGLE_MONITORING.encode())

            def look_up(host: Any, *rest: Any, **more: Any) -> Any:
                return real("127.0.0.1" if host in names else host, *rest, **more)

            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            place = f"{url.replace('127.0.0.1', GOOGLE_MONITORING)}/v1/projects/p/location/global/prometheus"
            found = gather(prometheus=place)
            assert (found.drift_state, found.model_version, found.declared_recall_high) == ("alarm", "7", 0.75)
            assert found.diagnosis == "largest distances: brightness 0.40"
            assert found.champion_age_days == pytest.approx(1.0, abs=0.01)
            grant = "module.platform.module.retrain.google_project_iam_member.metrics"
            monitoring.policy = Policy(plan_of("prod", grant))
            with pytest.raises(RetrainError, match=r"HTTP 403; grant roles/monitoring\.viewer"):
                gather(prometheus=place)
        monitoring.policy = Policy(plan_of("prod"))
        with prometheus(monitoring) as plain, pytest.raises(RetrainError, match="HTTP 401"):
            gather(prometheus=plain)  # no token goes anywhere else, nor in the clear
