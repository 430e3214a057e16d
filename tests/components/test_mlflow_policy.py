"""What a role may ask of production's MLflow, and how long a sign-in lasts; test_mlflow_server has the real server."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.mlflow_server.policy import ROLES, UNFINISHED, Call, Role, least_role, may
from components.mlflow_server.settings import roles
from serving.platform.errors import SignInError, StartError
from serving.platform.google_identity import IdTokens, expiry
from serving.registry import UNFINISHED_TAG

API = "/api/2.0/mlflow"
ALIAS = Call("POST", f"{API}/registered-models/alias")
TAG = Call("POST", f"{API}/model-versions/set-tag")


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", f"{API}/runs/get", "read"),
        ("POST", f"{API}/runs/search", "read"),
        ("POST", f"{API}/runs/log-batch", "write"),
        ("POST", "/ajax-api/2.0/mlflow/runs/create", "write"),
        ("POST", "/api/2.0/preview/mlflow/runs/create", "write"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a/b.txt", "write"),
        ("POST", f"{API}/model-versions/create", "write"),
        ("POST", f"{API}/registered-models/alias", "register"),
        ("POST", f"{API}/model-versions/set-tag", "register"),
        ("DELETE", f"{API}/registered-models/alias", "deploy"),
        ("DELETE", f"{API}/model-versions/delete", "deploy"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/a/b.txt", "deploy"),
        ("POST", f"{API}/model-versions/transition-stage", "deploy"),
        ("POST", f"{API}/registered-models/rename", "deploy"),
        ("POST", f"{API}//runs/create", "deploy"),
        ("POST", "/graphql", "deploy"),
        ("POST", "/api/9.0/mlflow/runs/create", "deploy"),
    ],
)
def test_each_route_needs_its_role(method: str, path: str, role: Role) -> None:
    call = Call(method, path)
    assert least_role(call) == role
    allowed = {name for name in ROLES if may(name, call, {"alias": "challenger"})}
    # `register` is also asked for the body
    assert allowed - {"register"} == set(ROLES[ROLES.index(role) :]) - {"register"}


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "TRACE", "post"]), st.text(max_size=60))
def test_what_nobody_named_is_for_deploy_alone(method: str, rest: str) -> None:
    call = Call(method, f"{API}/registered-models/{rest}")
    if (method, rest) in {("POST", "create"), ("POST", "get-latest-versions")}:
        return
    assert not may("write", call, None) and not may("read", call, None)


@pytest.mark.parametrize("body", [None, [], "x", {"alias": "champion"}, {"alias": ["challenger"]}, {}])
def test_registering_moves_the_challenger_alone(body: object) -> None:
    assert may("register", ALIAS, {"alias": "challenger"}) and may("deploy", ALIAS, body)
    assert not may("register", ALIAS, body) and not may("write", ALIAS, {"alias": "challenger"})


def test_a_version_s_address_is_written_once() -> None:
    late = {"key": "bundle_uri", "value": "gs://models/b"}
    assert may("register", TAG, late, {}) and may("register", TAG, late, {"bundle_uri": "gs://models/b"})
    assert not may("register", TAG, late, {"bundle_uri": "gs://models/other"})
    assert not may("register", TAG, {"key": "bundle_digest", "value": "0"}, {})


@pytest.mark.parametrize("key", ["bundle_digest", "bundle_uri", "verdict", None, ["registering"]])
def test_who_registers_takes_off_the_mark_of_an_unfinished_version_and_no_other_tag(key: object) -> None:
    assert UNFINISHED == UNFINISHED_TAG
    untag = Call("DELETE", f"{API}/model-versions/delete-tag")
    assert may("register", untag, {"name": "m", "version": "1", "key": UNFINISHED})
    assert not may("register", untag, {"name": "m", "version": "1", "key": key})
    assert not may("write", untag, {"key": UNFINISHED}) and not may("register", untag, None)


def test_accounts_and_roles_come_from_the_environment() -> None:
    found = roles({"MLFLOW_ACCESS_WRITE": "A@x, b@x", "MLFLOW_ACCESS_DEPLOY": "b@x"})
    assert found == {"a@x": "write", "b@x": "deploy"}
    with pytest.raises(StartError, match="set MLFLOW_ACCESS_DEPLOY"):
        roles({"MLFLOW_ACCESS_WRITE": "a@x"})


def token(ends: float) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"exp": ends}).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def test_a_session_of_hours_never_shows_a_token_that_ended() -> None:
    now, minted = [0.0], []

    def mint(audience: str) -> str:
        minted.append(audience)
        return token(now[0] + 3600)

    tokens = IdTokens(mint, lambda: now[0])
    for _ in range(240):  # four hours, a call a minute
        assert expiry(tokens.token("https://a.run.app")) - now[0] > 60
        now[0] += 60
    assert 4 <= len(minted) <= 5
    assert tokens.token("https://b.run.app") and minted[-1] == "https://b.run.app"


@pytest.mark.parametrize("text", ["", "a.b", "a.e30.c", "a.bm8.c", "x" * 20_000])
def test_what_is_no_token_is_one_line(text: str) -> None:
    with pytest.raises(SignInError, match="no ID token"):
        expiry(text)
