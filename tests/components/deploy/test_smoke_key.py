"""A service that asks for a key is smoke-tested with the one in Secret Manager, as a pipeline in the cloud does."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from serving.platform.errors import StageError
from tests.components.deploy.conftest import Shop
from tests.components.deploy.test_cloud_run import Cloud, assert_as_before
from tests.fakes.secret_manager import FakeSecretManager
from tests.fakes.servers import BundleServers
from tests.serving.processes import serve

KEYS = "the-first-key-of-two,the-second-key-of-two"
SECRET = "projects/proj/secrets/aidetect-api-keys"


@pytest.fixture
def guarded(shop: Shop, servers: BundleServers, tmp_path: Path) -> Iterator[Cloud]:
    """A service whose new revision answers nobody without a key."""
    cloud = Cloud(shop, servers)
    env = {"API_KEYS": KEYS, "REQUIRE_AUTH": "true", "MODEL_VERSION": "2"}
    with closing(cloud.run), serve(shop.bundles["2"], tmp_path / "server.log", **env) as server:
        cloud.answers["2"] = server.url
        yield cloud


@pytest.fixture
def secrets() -> Iterator[FakeSecretManager]:
    with closing(FakeSecretManager({SECRET: KEYS})) as fake:
        yield fake


def test_the_first_key_of_the_secret_opens_the_service(guarded: Cloud, secrets: FakeSecretManager) -> None:
    with pytest.raises(StageError, match="401"):
        guarded.deploy()
    assert_as_before(guarded, "401")

    guarded.deploy(api_key_secret="aidetect-api-keys", secrets_api_endpoint=secrets.url)
    assert guarded.shop.crowned == "2"
    assert [request.path for request in secrets.requests] == [f"/v1/{SECRET}/versions/latest:access"], "read once"
    assert "the-first-key" not in Path(guarded.shop.ledger_path).read_text()


@pytest.mark.parametrize(
    ("keys", "code", "state", "problem"),
    [
        (KEYS, 403, "ENABLED", "403 .*injected 403; grant the calling service account"),
        ("", 0, "ENABLED", "the secret is empty"),
        (None, 0, "ENABLED", "404"),
        (
            KEYS,
            0,
            "DESTROYED",
            r"400 .* is in DESTROYED state\.; gcloud secrets versions add aidetect-api-keys --data-file",
        ),
    ],
)
def test_a_secret_that_cannot_be_used_stops_before_any_user_sees_it(
    guarded: Cloud, secrets: FakeSecretManager, keys: str | None, code: int, state: str, problem: str
) -> None:
    secrets.secrets, secrets.state = {} if keys is None else {SECRET: keys}, state
    if code:
        secrets.fail("GET", ":access", code)
    with pytest.raises(StageError, match=f"read the API key in {SECRET}.*{problem}"):
        guarded.deploy(api_key_secret="aidetect-api-keys", secrets_api_endpoint=secrets.url)
    assert_as_before(guarded, "read the API key")


def test_a_key_of_the_environment_comes_first(
    guarded: Cloud, secrets: FakeSecretManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIDETECT_API_KEY", "the-second-key-of-two")
    guarded.deploy(api_key_secret="aidetect-api-keys", secrets_api_endpoint=secrets.url)
    assert guarded.shop.crowned == "2"
    assert secrets.requests == []
