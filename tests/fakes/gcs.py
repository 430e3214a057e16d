"""Cloud Storage's JSON API on loopback, as far as the client library uses it here: objects in memory."""

import base64
import fnmatch
import json
import re
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlparse

import google_crc32c

from tests.fakes.loopback import LoopbackServer
from tests.fakes.policy import Policy, RefusedError


class FakeGcs:
    """Buckets of objects; any bucket exists. Set STORAGE_EMULATOR_HOST to `url`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        """`bucket/name` -> content."""
        self.generations: dict[str, int] = {}
        self.uploads: list[str] = []
        self.cut: str = ""
        """Uploads of names that contain this break off without an answer."""
        self.requests: list[str] = []
        """`METHOD path` of each."""
        self.missing: set[str] = set()
        """Buckets that do not exist."""
        self.denied: set[str] = set()
        """Permissions that the caller has on no bucket."""
        self.policy: Policy | None = None
        """Who may do what; None: a test that is not about rights."""
        self.faults: list[tuple[str, int, int]] = []
        """(part of the path, status to answer, how often)."""
        self._sessions: dict[str, tuple[str, bytes]] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                url = urlparse(self.path)
                with outer._lock:
                    answered = outer.handle(self.command, url.path, url.query, self.headers, body)
                if answered is None:
                    self.close_connection = True
                    return
                code, headers, payload = answered
                self.send_response(code)
                for key, value in {**headers, "content-length": str(len(payload))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_DELETE = answer

        self._server = LoopbackServer(Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fail(self, part: str, code: int, times: int = -1) -> None:
        """Answer `code` to requests whose path contains `part`, `times` times."""
        self.faults.append((part, code, times))

    def put(self, uri: str, content: bytes) -> None:
        """Have an object at `gs://BUCKET/NAME`."""
        key = uri.removeprefix("gs://")
        self.objects[key] = content
        self.generations[key] = self.generations.get(key, 0) + 1

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def handle(self, method: str, path: str, asked: str, headers: Any, body: bytes) -> Any:
        """One request; None breaks the connection off."""
        self.requests.append(f"{method} {path}")
        for index, (part, code, times) in enumerate(self.faults):
            if times and part in unquote(path):
                self.faults[index] = (part, code, times - 1)
                return self._json(code, {"error": {"code": code, "message": f"injected {code}"}})
        if self.policy is not None:
            try:
                self._ask(method, path, asked, headers, body, self.policy)
            except RefusedError as error:
                return self._json(error.code, {"error": {"code": error.code, "message": str(error)}})
        about = re.fullmatch(r"/storage/v1/b/([^/]+)(/iam/testPermissions)?", path)
        if about and about[1] not in self.missing:
            wanted = {value for key, value in parse_qsl(asked) if key == "permissions"}
            if self.policy is not None:
                policy, on = self.policy, self.policy.real(f"bucket {about[1]}")
                wanted = {permission for permission in wanted if policy.allows(policy.caller, permission, on)}
            return self._json(200, {"name": about[1], "permissions": sorted(wanted - self.denied)})
        query = dict(parse_qsl(asked))
        found = re.fullmatch(r"/(?:(upload|download)/)?storage/v1/b/([^/]+)/o(?:/(.+))?", path)
        if not found or found[2] in self.missing:
            return self._json(404, {"error": {"code": 404, "message": path}})
        kind, bucket, name = found[1], found[2], unquote(found[3] or "")
        if kind == "upload":
            return self._upload(method, bucket, query, headers, body)
        key = f"{bucket}/{name}"
        if not name:
            prefix, start = (f"{bucket}/{query.get(part, '')}" for part in ("prefix", "startOffset"))
            found_ = [key for key in sorted(self.objects) if key.startswith(prefix) and key >= start]
            if "matchGlob" in query:  # `**` crosses folders, as fnmatch's star does
                found_ = [key for key in found_ if fnmatch.fnmatchcase(key.partition("/")[2], query["matchGlob"])]
            return self._json(200, {"items": [self._meta(k) for k in found_]})
        if key not in self.objects:
            return self._json(404, {"error": {"code": 404, "message": f"{key} not found"}})
        if method == "DELETE":
            del self.objects[key]
            return 204, {}, b""
        if query.get("alt") == "media":
            meta = self._meta(key)
            hashes = {"x-goog-hash": f"crc32c={meta['crc32c']}", "x-goog-generation": meta["generation"]}
            return self._content(self.objects[key], headers.get("range", ""), hashes)
        return self._json(200, self._meta(key))

    @staticmethod
    def _content(whole: bytes, wanted: str, hashes: dict[str, str]) -> Any:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if not span:
            return 200, hashes, whole
        begin, end = int(span[1]), min(int(span[2] or len(whole)), len(whole) - 1)
        if begin > end:
            return 416, {"content-range": f"bytes */{len(whole)}"}, b""
        where = {"content-range": f"bytes {begin}-{end}/{len(whole)}"}
        return 206, hashes | where, whole[begin : end + 1]

    def _ask(self, method: str, path: str, asked: str, headers: Any, body: bytes, policy: Policy) -> None:
        found = re.fullmatch(r"/(?:(upload|download)/)?storage/v1/b/([^/]+)/o(?:/(.+))?", path)
        if not found or method == "PUT":
            return
        kind, on, name = found[1], f"bucket {found[2]}", unquote(found[3] or "")
        query = dict(parse_qsl(asked))
        if kind == "upload":
            policy.require("storage.objects.create", on)
            told = re.search(rb'"name": ?"([^"]+)"', body)
            name = query.get("name") or (told[1].decode() if told else "")
            if f"{found[2]}/{name}" in self.objects:
                policy.require("storage.objects.delete", on)  # what it replaces is deleted
        elif not name:
            policy.require("storage.objects.list", on)
        else:
            policy.require(f"storage.objects.{'delete' if method == 'DELETE' else 'get'}", on)

    def _upload(self, method: str, bucket: str, query: dict[str, str], headers: Any, body: bytes) -> Any:
        if method == "PUT":
            key, before = self._sessions[query["upload_id"]]
            if self.cut and self.cut in key:
                return None
            total = headers["content-range"].rpartition("/")[2]
            whole = before + body
            self._sessions[query["upload_id"]] = (key, whole)
            if total == "*" or len(whole) < int(total):
                return 308, {"range": f"bytes=0-{len(whole) - 1}"}, b""
            return self._store(key, whole, query)
        if query["uploadType"] == "resumable":
            session = str(len(self._sessions) + 1)
            name = query.get("name") or json.loads(body)["name"]
            self._sessions[session] = (f"{bucket}/{name}", b"")
            where = f"{self.url}/upload/storage/v1/b/{bucket}/o?upload_id={session}"
            return 200, {"location": where}, b""
        head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
        document = json.loads(str(list(message_from_bytes(head + body).walk())[1].get_payload()))
        key = f"{bucket}/{document['name']}"
        if self.cut and self.cut in key:
            return None
        named = re.search(r'boundary="?([^";]+)', headers["content-type"])
        assert named is not None
        boundary = named[1].encode()
        raw = body.split(b"--" + boundary)[2].split(b"\r\n\r\n", 1)[1][:-2]
        if "crc32c" in document and document["crc32c"] != _crc32c(raw):
            return self._json(400, {"error": {"code": 400, "message": "crc32c does not match"}})
        return self._store(key, raw, query)

    def _store(self, key: str, content: bytes, query: dict[str, str]) -> Any:
        wanted = query.get("ifGenerationMatch")
        standing = self.generations.get(key, 0) if key in self.objects else 0
        if wanted is not None and int(wanted) != standing:
            return self._json(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        self.objects[key] = content
        self.generations[key] = self.generations.get(key, 0) + 1
        self.uploads.append(key)
        return self._json(200, self._meta(key))

    def _meta(self, key: str) -> dict[str, str]:
        bucket, _, name = key.partition("/")
        content = self.objects[key]
        return {
            "bucket": bucket,
            "name": name,
            "size": str(len(content)),
            "crc32c": _crc32c(content),
            "generation": str(self.generations[key]),
        }

    @staticmethod
    def _json(code: int, document: dict[str, Any]) -> Any:
        return code, {"content-type": "application/json"}, json.dumps(document).encode()


def _crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
