"""What the stand-ins for Google's REST APIs share: long-running operations, injected faults, captured bodies."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlparse

from google.protobuf import json_format

from tests.fakes.loopback import LoopbackServer
from tests.fakes.policy import Policy, RefusedError

STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class ApiError(Exception):
    """An error that the API answers."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Request:
    """One captured request."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    """By their names in lower case."""


@dataclass
class GoogleRest:
    """An HTTP server on loopback; subclasses answer in `route`."""

    requests: list[Request] = field(default_factory=list)
    faults: list[tuple[Callable[[Request], bool], int, int]] = field(default_factory=list)
    """(which requests, status to answer, how often; -1 for ever)."""
    cuts: list[tuple[str, str, bool]] = field(default_factory=list)
    """(method, part of the path, whether it is still carried out): such a request is broken off, once."""
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    policy: Policy | None = None
    """Who may do what; None: a test that is not about rights."""

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(length)
                url = urlparse(self.path)
                request = Request(
                    self.command,
                    unquote(url.path),
                    dict(parse_qsl(url.query)),
                    json.loads(raw) if raw else {},
                    {name.lower(): value for name, value in self.headers.items()},
                )
                cut = outer.cut_off(request)
                if cut is False:
                    self.close_connection = True
                    return
                code, document = outer.handle(request)
                if cut:
                    self.close_connection = True
                    return
                payload = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(payload)

            do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = answer

        self._server = LoopbackServer(Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._lock = threading.Lock()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, part: str, code: int, times: int = -1) -> None:
        """Answer `code` to requests of `method` whose path contains `part`, `times` times; a `$` stands for its end."""
        self.faults.append((lambda r: r.method == method and part in f"{r.path}$", code, times))

    def cut(self, method: str, part: str, carried_out: bool) -> None:
        """Break the next such request off without an answer, after carrying it out or before."""
        self.cuts.append((method, part, carried_out))

    def cut_off(self, request: Request) -> bool | None:
        """Whether this request is broken off after it was carried out (True) or before (False); None: it is not."""
        for index, (method, part, carried_out) in enumerate(self.cuts):
            if request.method == method and part in request.path:
                del self.cuts[index]
                return carried_out
        return None

    def handle(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Answer one request."""
        with self._lock:
            self.requests.append(request)
            try:
                if self.policy is not None:
                    self.ask(request, self.policy)
                self._inject(request)
                if "/operations/" in request.path:
                    return 200, self._operation(request)
                return 200, self.route(request)
            except ApiError as error:
                status = STATUS.get(error.code, "UNKNOWN")
                return error.code, {"error": {"code": error.code, "message": str(error), "status": status}}
            except RefusedError as error:
                status = STATUS.get(error.code, "UNKNOWN")
                return error.code, {"error": {"code": error.code, "message": str(error), "status": status}}
            except json_format.ParseError as error:
                return 400, {"error": {"code": 400, "message": str(error), "status": "INVALID_ARGUMENT"}}

    def ask(self, request: Request, policy: Policy) -> None:
        """Ask the policy for what Google would ask for.

        Raises:
            RefusedError: it does not allow the request.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know what {request.method} {request.path} needs")

    def route(self, request: Request) -> dict[str, Any]:
        """Answer of the API proper."""
        raise ApiError(501, f"{request.method} {request.path}")

    def running(self, parent: str, kind: str, response: dict[str, Any]) -> dict[str, Any]:
        """A long-running operation that is done when it is asked about."""
        name = f"{parent}/operations/{len(self.operations) + 1}"
        self.operations[name] = {
            "name": name,
            "done": True,
            "response": {"@type": f"type.googleapis.com/{kind}", **response},
        }
        return {"name": name, "done": False}

    def failing(self, parent: str, code: int, message: str) -> dict[str, Any]:
        """One that has failed when it is asked about; `code` is gRPC's."""
        begun = self.running(parent, "google.protobuf.Empty", {})
        self.operations[begun["name"]] = {
            "name": begun["name"],
            "done": True,
            "error": {"code": code, "message": message},
        }
        return begun

    def _operation(self, request: Request) -> dict[str, Any]:
        name = request.path.split("/", 2)[2]
        if name not in self.operations:
            raise ApiError(404, f"{name} not found")
        return self.operations[name]

    def _inject(self, request: Request) -> None:
        for index, (matches, code, times) in enumerate(self.faults):
            if times and matches(request):
                self.faults[index] = (matches, code, times - 1)
                raise ApiError(code, f"injected {code}")
