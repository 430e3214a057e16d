"""A Kubernetes API server on loopback, over TLS, with Kubeflow Trainer in it: TrainJobs, and who may do what to them.

It refuses what a cluster would: an unknown token (401), a verb that no role grants (403), a resource that nobody
installed (404), a name that is taken (409), a field that the schema does not know (400, where validation is strict).
"""

import json
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.google_rest import ApiError, GoogleRest, Request

Job = dict[str, Any]
Condition = tuple[str, str]
"""Type that is true of a job, and its message."""
BEGUN: Final[Condition] = ("", "")
COMPLETE: Final[Condition] = ("Complete", "jobset completed successfully")
FAILED: Final[Condition] = ("Failed", "jobset failed due to one or more job failures")
Machines = Callable[[Job], Iterator[Condition]]
"""What the machines of a job do: its condition at every look."""
_REASONS: Final = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists",
                   422: "Invalid"}  # fmt: skip
_VERBS: Final = {"POST": "create", "DELETE": "delete"}
_PATH: Final = re.compile(r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([a-z0-9-]+)/trainjobs(?:/([a-z0-9-]+))?")
_SCHEMA: Final[dict[str, Any]] = {
    "apiVersion": str, "kind": str, "metadata": {"name": str, "labels": dict},
    "spec": {
        "runtimeRef": {"apiGroup": str, "kind": str, "name": str}, "initializer": dict, "suspend": bool,
        "managedBy": str, "activeDeadlineSeconds": int, "runtimePatches": list,
        "trainer": {"image": str, "command": list, "args": list, "env": list, "numNodes": int,
                    "resourcesPerNode": {"limits": dict, "requests": dict, "claims": list}},
    },
}  # fmt: skip
"""Of kubeflow/trainer's TrainJob, fields that all of 2.x know."""
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def complete(_: Job) -> Iterator[Condition]:
    """Machines without anything to do."""
    return chain((BEGUN, ("Suspended", "waits for room")), repeat(COMPLETE))


class FakeKubernetes(GoogleRest):
    """One namespace, `team`; `machines` says what becomes of a job. `account` is what a pod's service account shows."""

    def __init__(self, folder: Path, rules: list[dict[str, Any]], machines: Machines = complete) -> None:
        """Start it.

        Args:
            folder: for the certificate; `account` lies in it.
            rules: of the service account's role.
            machines: see there.
        """
        super().__init__()
        self.machines, self.rules = machines, rules
        self.installed, self.runtimes = True, {"aidetect"}
        self.jobs: dict[str, Job] = {}
        self.deleted: list[str] = []
        self.token = "token-1"
        self._looks: dict[str, Iterator[Condition]] = {}
        self.account = folder / "account"
        self.account.mkdir()
        (self.account / "namespace").write_text("team")
        (self.account / "token").write_text(self.token)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_certificate(folder, self.account / "ca.crt"))
        # the handshake is the handler's, not the listener's: a client that will not have it holds up nobody
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]

    def handle(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Answer one request; refusals have the shape of Kubernetes."""
        with self._lock:
            self.requests.append(request)
            try:
                self._inject(request)
                if request.headers.get("authorization") != f"Bearer {self.token}":
                    raise ApiError(401, "Unauthorized")
                return (201 if request.method == "POST" else 200), self.route(request)
            except ApiError as error:
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": error.code}
                return error.code, status | {"message": str(error), "reason": _REASONS.get(error.code, "InternalError")}

    def route(self, request: Request) -> dict[str, Any]:
        """TrainJobs: create, list by label, get, delete."""
        found = _PATH.fullmatch(request.path)
        if found is None or not self.installed:
            raise ApiError(404, "the server could not find the requested resource")
        namespace, name = found.groups()
        self._authorise(_VERBS.get(request.method) or ("get" if name else "list"), namespace)
        if request.method == "POST":
            return self._create(request)
        if not name:
            key, _, value = request.query["labelSelector"].partition("=")
            items = [job for job in self.jobs.values() if job["metadata"]["labels"].get(key) == value]
            return {"kind": "TrainJobList", "items": [self._shown(job) for job in items]}
        if name not in self.jobs:
            raise ApiError(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        if request.method == "DELETE":
            self.deleted.append(name)
            return self.jobs.pop(name)
        job = self.jobs[name]
        job["condition"] = next(self._looks[name])
        return self._shown(job)

    def _authorise(self, verb: str, namespace: str) -> None:
        granted = [rule for rule in self.rules if "trainer.kubeflow.org" in rule["apiGroups"]]
        if namespace != "team" or not any("trainjobs" in r["resources"] and verb in r["verbs"] for r in granted):
            raise ApiError(
                403,
                'trainjobs.trainer.kubeflow.org is forbidden: User "system:serviceaccount:team:pipeline-runner" '
                f'cannot {verb} resource "trainjobs" in API group "trainer.kubeflow.org" in namespace "{namespace}"',
            )

    def _create(self, request: Request) -> Job:
        job, name = request.body, request.body.get("metadata", {}).get("name", "")
        if request.query.get("fieldValidation") == "Strict":
            _strict(job, _SCHEMA, "")
        trainer, runtime = job["spec"].get("trainer", {}), job["spec"]["runtimeRef"]
        each = [*trainer["resourcesPerNode"]["limits"].items(), *trainer["resourcesPerNode"]["requests"].items()]
        problems = {
            "metadata.name": not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name),
            "metadata.labels": not all(
                re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)
                for value in job["metadata"].get("labels", {}).values()
            ),
            "spec.trainer.numNodes": trainer.get("numNodes", 1) < 1,
            "spec.trainer.resourcesPerNode": not all(_QUANTITY.fullmatch(value) for _, value in each),
        }
        for field, wrong in problems.items():
            if wrong:
                raise ApiError(422, f'TrainJob.trainer.kubeflow.org "{name}" is invalid: {field}: Invalid value')
        if runtime["kind"] != "TrainingRuntime" or runtime["name"] not in self.runtimes:
            raise ApiError(
                403,
                f'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: '
                f'Invalid value: TrainingRuntime.trainer.kubeflow.org "{runtime["name"]}" not found',
            )
        if name in self.jobs:
            raise ApiError(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        created = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.requests))).isoformat()
        self.jobs[name] = json.loads(json.dumps(job)) | {"condition": BEGUN}
        self.jobs[name]["metadata"] |= {"namespace": "team", "creationTimestamp": created}
        self._looks[name] = self.machines(self.jobs[name])
        return self._shown(self.jobs[name])

    @staticmethod
    def _shown(job: Job) -> Job:
        kind, message = job["condition"]
        shown = {key: value for key, value in job.items() if key != "condition"}
        conditions = [{"type": "Created", "status": "True", "reason": "Created", "message": ""}]
        if kind:
            conditions += [{"type": kind, "status": "True", "reason": kind, "message": message}]
            # what was true before stays in the list
            conditions += [{"type": "Suspended", "status": "False", "reason": "Resumed", "message": ""}]
        return shown | ({"status": {"conditions": conditions}} if kind else {})


def _strict(document: Any, schema: dict[str, Any], place: str) -> None:
    for key, value in document.items():
        if key not in schema:
            raise ApiError(400, f'strict decoding error: unknown field "{place}{key}"')
        if isinstance(schema[key], dict):
            _strict(value, schema[key], f"{place}{key}.")
        elif not isinstance(value, schema[key]):
            raise ApiError(400, f"json: cannot unmarshal into field {place}{key} of type {schema[key].__name__}")


def _certificate(folder: Path, authority: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, signed by itself; its public part is the cluster's authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now, public = datetime.now(UTC), key.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    ).public_bytes(serialization.Encoding.PEM)
    authority.write_bytes(made)
    form = serialization.PrivateFormat.PKCS8
    both = folder / "server.pem"
    both.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()) + made)
    return both
