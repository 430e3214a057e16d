"""Production's MLflow server: a real one on a real PostgreSQL behind Cloud Run's check; who may do what.

Needs: apt-get install postgresql
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from components.artifacts.model_version import CHALLENGER, CHAMPION
from components.platform.registry import Registry
from components.platform.tracking import find_run, record
from serving.platform.errors import SignInError, StageError
from serving.platform.google_identity import IdTokens, mint_id_token
from tests.fakes.google_sign_in import Front, Issuer, issuing, serving, unsigned
from tests.fakes.policy import plan_of
from tests.fakes.servers import free_port
from tests.releases import make_context, registered
from tests.serving.processes import environment
from tests.untraced import untraced

pytestmark = pytest.mark.system

ACCOUNTS = {"READ": "serving", "WRITE": "train", "REGISTER": "pipeline", "DEPLOY": "deploy"}
OWNER = "operator@example.test"
SERVICE = "service aidetect-mlflow"


def email(account: str) -> str:
    return f"aidetect-{account}@example-project.iam.gserviceaccount.com"


def invited() -> set[str]:
    """Whom Terraform lets call the server."""
    return {grant.member.partition(":")[2] for grant in plan_of("prod").bindings if grant.resource == SERVICE}


def program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, "apt-get install postgresql"
    return str(found[-1])


@dataclass
class Deployment:
    """What runs, and how to call it as somebody."""

    url: str
    behind: str
    database: str
    issuer: Issuer
    folder: Path
    said: str = ""
    """The body of the last answer to `call`."""

    def call(self, method: str, path: str, token: str = "", body: object = None, straight: bool = False) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        base = self.behind if straight else self.url
        url = f"{base}/api/2.0/mlflow/{path}"
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.request(method, url, json=body, headers={**headers, "Host": self.url.partition("//")[2]})
        self.said = answer.text
        return answer.status_code

    def token(self, account: str) -> str:
        return self.issuer.token(email(account), self.url)


def sql(address: str) -> str:
    """The same for SQLAlchemy, whose default driver is another one than the image has."""
    return address.replace("postgresql://", "postgresql+psycopg2://", 1)


def as_postgres(*command: str) -> None:
    who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*who, *command], check=True, capture_output=True, text=True, timeout=120, cwd="/")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an empty PostgreSQL on loopback, without a database name."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="aidetect-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    as_postgres(program("initdb"), "-D", f"{folder}/data", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    as_postgres(program("pg_ctl"), "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        as_postgres(program("pg_ctl"), "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def deployment(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder, port = tmp_path_factory.mktemp("mlflow-production"), free_port()
    subprocess.run([program("createdb"), f"--maintenance-db={postgres}/postgres", "mlflow"], check=True, timeout=60)
    with ExitStack() as stack:
        issuer = stack.enter_context(issuing())
        issuer.metadata_account, issuer.user = email("pipeline"), OWNER
        invokers = invited()
        assert invokers == {*map(email, ACCOUNTS.values()), OWNER}
        behind = f"http://127.0.0.1:{port}"
        url = stack.enter_context(serving(Front, issuer=issuer, invokers=invokers, behind=behind, refused=[]))
        access = {f"MLFLOW_ACCESS_{role}": email(account) for role, account in ACCOUNTS.items()}
        access["MLFLOW_ACCESS_DEPLOY"] += f",{OWNER}"
        access["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # as in the image
        access["MLFLOW_ACCESS_CERTIFICATES"] = f"{issuer.url}/certs"
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "aidetect", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", str(folder / "artifacts")]
        command += ["--backend-store-uri", f"{sql(postgres)}/mlflow"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, env=untraced({**environment(), **access}), stdout=log, stderr=subprocess.STDOUT, cwd=folder
            )

        def stop() -> None:
            if process.poll() is None:
                for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                    member.kill()
            process.wait(20)

        stack.callback(stop)
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{behind}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield Deployment(url, behind, f"{postgres}/mlflow", issuer, folder)


@pytest.fixture
def signed_in(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes this process's MLflow client sign in as an account, by its key file."""
    from serving.platform import mlflow_sign_in

    def become(account: str) -> None:
        path = deployment.issuer.service_account(tmp_path, email(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setattr(mlflow_sign_in, "_TOKENS", IdTokens())

    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", mlflow_sign_in.NAME)
    return become


def test_train_records_and_registers_and_only_deploy_moves_the_champion(
    deployment: Deployment, signed_in: Callable[[str], None], toy_bundle: Path, tmp_path: Path
) -> None:
    context = make_context(tmp_path, tracking_uri=deployment.url, artifact_root="")
    signed_in("pipeline")
    assert registered(tmp_path / "1", toy_bundle, context).version == "1"
    registry = Registry(deployment.url, context.model_name)
    assert registry.aliased(CHALLENGER) == "1"
    with pytest.raises(StageError, match=r"has role register; POST .*alias needs deploy"):
        registry.point(CHAMPION, "1")
    registry.tag("1", bundle_uri="gs://models/first")
    with pytest.raises(StageError, match=r"needs deploy"):  # where a version's files lie is written once
        registry.tag("1", bundle_uri="gs://attacker/bundle")

    signed_in("deploy")
    registry = Registry(deployment.url, context.model_name)
    registry.point(CHAMPION, "1")
    registry.mark("rolled_back", {"1"})

    signed_in("train")
    (tmp_path / "note.txt").write_text("kept")
    mine = make_context(tmp_path, tracking_uri=deployment.url, artifact_root="", run_id="of-train")
    record(mine, metrics={"train/accuracy": 0.9}, files=[tmp_path / "note.txt"], folder="notes")
    registry = Registry(deployment.url, context.model_name)
    run = find_run(registry.client, mine.experiment, mine.run_id)
    made = registry.client.create_model_version(context.model_name, f"runs:/{run}/notes", run_id=run).version
    for attempt in (
        lambda: registry.point(CHAMPION, str(made)),
        lambda: registry.point(CHALLENGER, str(made)),
        lambda: registry.point(CHAMPION, None),
        lambda: registry.tag("1", bundle_digest="0" * 64),
        lambda: registry.client.delete_model_version(context.model_name, "1"),
        lambda: registry.client.rename_registered_model(context.model_name, "mine"),
        lambda: registry.client.transition_model_version_stage(context.model_name, "1", "Archived"),
    ):
        with pytest.raises(Exception, match=r"has role write; .* needs (register|deploy)"):
            attempt()
    assert registry.aliased(CHAMPION) == "1"

    signed_in("serving")
    assert Registry(deployment.url, context.model_name).aliased(CHAMPION) == "1"
    with pytest.raises(StageError, match=r"has role read; .* needs write"):
        record(mine, metrics={"train/accuracy": 1.0})


def test_nobody_and_no_forged_token_gets_through(deployment: Deployment) -> None:
    body = {"name": "ai-product-photo-detector", "alias": CHAMPION, "version": "1"}
    move = ("POST", "registered-models/alias")
    assert deployment.call(*move, body=body) == 403
    assert deployment.call(*move, token=unsigned(deployment.token("deploy")), body=body) == 403
    # past the front, as if it had been fooled: the server asks for itself
    issuer = deployment.issuer
    for token, words in {
        "": "no ID token",
        unsigned(deployment.token("deploy")): "does not hold",
        deployment.token("deploy").rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE": "does not hold",
        issuer.token(email("deploy"), "https://elsewhere.run.app"): "another service",
        issuer.token(email("deploy"), deployment.url, exp=int(time.time()) - 60): "does not hold",
        issuer.token(email("deploy"), deployment.url, iss="https://evil.test"): "no verified e-mail",
        issuer.token(email("deploy"), deployment.url, email_verified=False): "no verified e-mail",
    }.items():
        assert deployment.call(*move, token=token, body=body, straight=True) == 401
        assert words in deployment.said
    assert deployment.call("GET", "experiments/search?max_results=1", straight=True) == 401
    stranger = issuer.token("stranger@example.test", deployment.url)
    assert deployment.call("GET", "experiments/search?max_results=1", token=stranger, straight=True) == 403
    # another spelling of a route is no way around
    for path in ("registered-models//alias", "registered-models/alias/", "registered-models/./alias"):
        assert deployment.call("POST", path, deployment.token("train"), body, straight=True) == 403


def test_a_session_outlives_its_tokens(
    deployment: Deployment, signed_in: Callable[[str], None], tmp_path: Path
) -> None:
    """A training of more than an hour: the issuer's clock stands an hour back, so that its tokens end in seconds."""
    signed_in("train")
    issuer = deployment.issuer
    issuer.moved_s = -3597.0
    before = len(issuer.minted)
    try:
        context = make_context(tmp_path, tracking_uri=deployment.url, artifact_root="", run_id="long")
        first = time.monotonic()
        while time.monotonic() - first < 5:
            record(context, metrics={"train/loss": 0.5})
            time.sleep(0.3)
    finally:
        issuer.moved_s = 0.0
    assert 2 <= len(issuer.minted) - before <= 6


@pytest.mark.parametrize("kind", ["user", "federated", "metadata"])
def test_each_kind_of_credentials_signs_in(
    deployment: Deployment, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from serving.platform import mlflow_sign_in

    issuer = deployment.issuer
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", mlflow_sign_in.NAME)
    monkeypatch.setattr(mlflow_sign_in, "_TOKENS", IdTokens())
    if kind == "metadata":
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"):
            monkeypatch.setenv(name, issuer.url.partition("//")[2])
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
        _fresh_metadata(monkeypatch, issuer.url.partition("//")[2])
    else:
        from google.auth import external_account
        from google.oauth2 import credentials as user

        # two addresses of Google's that its library holds fixed
        monkeypatch.setattr(user, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{issuer.url}/token")
        monkeypatch.setattr(external_account.Credentials, "get_project_id", lambda *_, **__: None)
        path = issuer.login(tmp_path) if kind == "user" else issuer.federated(tmp_path, email("deploy"))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert Registry(deployment.url, "ai-product-photo-detector").aliased(CHAMPION) in ("1", None)
    assert issuer.minted[-1][0] in (issuer.user, email("deploy"), issuer.metadata_account)


def _fresh_metadata(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """google-auth read the metadata server's address when it was imported."""
    from google.auth.compute_engine import _metadata

    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)
    for name in ("_METADATA_ROOT", "_METADATA_IP_ROOT"):
        path = "/computeMetadata/v1/" if name == "_METADATA_ROOT" else ""
        monkeypatch.setattr(_metadata, name, f"http://{host}{path}", raising=False)


def test_a_dump_and_its_restore_lose_nothing(deployment: Deployment, postgres: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    dump = tmp_path / "dump"
    subprocess.run([program("pg_dump"), "-Fc", "-f", str(dump), deployment.database], check=True, timeout=60)
    subprocess.run([program("createdb"), f"--maintenance-db={postgres}/postgres", "restored"], check=True, timeout=60)
    subprocess.run([program("pg_restore"), "-d", f"{postgres}/restored", str(dump)], check=True, timeout=60)

    def everything(uri: str) -> list[object]:
        client = MlflowClient(sql(uri), sql(uri))
        models = [dict(m, latest_versions=None) for m in client.search_registered_models()]
        versions = [dict(v) for v in client.search_model_versions()]
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        return [str(models), sorted(map(str, versions)), sorted(str(run.to_dictionary()) for run in found)]

    assert everything(deployment.database) == everything(f"{postgres}/restored")
    assert "champion" in str(everything(f"{postgres}/restored"))


def test_without_credentials_one_line_says_how_to_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(SignInError, match="no Google credentials to sign in with; run: gcloud auth"):
        mint_id_token("https://aidetect-mlflow.run.app")
