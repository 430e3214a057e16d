"""`mlflow server --app-name aidetect`: MLflow's own application behind a guard that knows its callers.

Cloud Run lets no anonymous call through; the guard asks once more, by the signature of the token, because what an
account may do is decided here: a request that a role may not make never reaches MLflow.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from components.mlflow_server.callers import Certificates, caller
from components.mlflow_server.policy import TAG, Call, Role, least_role, may
from components.mlflow_server.settings import certificates_url, roles
from serving.platform.errors import SignInError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Tags = Callable[[str, str], dict[str, str]]

OPEN: Final = ("/health", "/version")
"""Start-up and liveness probes; they tell nothing."""
_JUDGED_BYTES: Final = 65_536
_NAME_IT: Final = "name it in MLFLOW_ACCESS_READ, _WRITE, _REGISTER or _DEPLOY (Terraform: people in operators)"
_log = logging.getLogger(__name__)


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, accounts: dict[str, Role], certificates: Certificates, tags: Tags) -> None:
        """Guard `app`.

        Args:
            app: MLflow's.
            accounts: e-mail address -> role.
            certificates: what tokens are checked with.
            tags: (model, version) -> the tags that stand.
        """
        self._app, self._accounts, self._certificates, self._tags = app, accounts, certificates, tags

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass on what the caller may ask; 401 or 403, in the shape of MLflow's errors, for the rest."""
        if scope["type"] == "lifespan" or scope.get("path") in OPEN:
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        call = Call(scope["method"], scope["path"])
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            who = await asyncio.to_thread(
                caller, headers.get("authorization", ""), headers.get("host", ""), self._certificates
            )
        except SignInError as error:
            return await _refuse(send, 401, "UNAUTHENTICATED", str(error))
        role = self._accounts.get(who)
        if role is None:
            return await _refuse(send, 403, "PERMISSION_DENIED", f"{who} has no role here; {_NAME_IT}")
        body, again = None, receive
        if role == "register" and call.body_counts:
            body, again = await _judged(receive)
        standing = await self._standing(body) if call.asks == TAG and isinstance(body, dict) else None
        if not may(role, call, body, standing):
            _log.warning("refused: %s (%s) %s %s", who, role, call.method, call.path)
            needed = _needed(role, call)
            fix = "aidetect deploy promotes, by who has that role" if role == "register" else _NAME_IT
            text = f"{who} has role {role}; {call.method} {call.path} needs {needed}; {fix}"
            return await _refuse(send, 403, "PERMISSION_DENIED", text)
        return await self._app(scope, again, send)

    async def _standing(self, body: dict[str, Any]) -> dict[str, str]:
        return await asyncio.to_thread(self._tags, str(body.get("name", "")), str(body.get("version", "")))


def _needed(role: Role, call: Call) -> Role:
    # `register` is refused here only for what a body asked beyond it
    return "deploy" if role == "register" else least_role(call)


async def _judged(receive: Receive) -> tuple[Any, Receive]:
    """The parsed body (None: none that can be judged), and what gives it to the application once more."""
    whole = b""
    while True:
        message = await receive()
        whole += message.get("body", b"")
        if len(whole) > _JUDGED_BYTES or message["type"] != "http.request":
            return None, receive
        if not message.get("more_body", False):
            break
    pending = [{"type": "http.request", "body": whole, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    try:
        return json.loads(whole), again
    except (ValueError, RecursionError):
        return None, again


async def _refuse(send: Send, status: int, code: str, text: str) -> None:
    body = json.dumps({"error_code": code, "message": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def standing_tags(name: str, version: str) -> dict[str, str]:
    """The tags of a version in this server's own registry; none where there is no such version."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_model_registry_store

    try:
        found = _get_model_registry_store().get_model_version(name, version)  # type: ignore[no-untyped-call] # MLflow's
    except MlflowException:
        return {}
    return dict(found.tags)


def create_app() -> Guard:
    """What `mlflow server --app-name aidetect` serves.

    Raises:
        StartError: nobody may deploy.
    """
    accounts = roles()
    from mlflow.server.fastapi_app import app

    return Guard(app, accounts, Certificates(certificates_url()), standing_tags)
