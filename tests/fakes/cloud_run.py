"""A Cloud Run Admin API v2 on loopback whose revisions are real servers. Bodies are parsed by Google's own protos."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2
from google.protobuf import json_format

from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.policy import Policy

SERVICE = "projects/proj/locations/europe-west1/services/detector"
LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST


@dataclass(frozen=True)
class Unready:
    """Why a revision does not come up: gRPC's code of the operation, Google's words and its reason."""

    code: int
    message: str
    reason: str = ""
    """Of `Condition.CommonReason` or `Condition.RevisionReason`."""


class FakeCloudRun(GoogleRest):
    """One service. `serve` gives the address of a server for a revision's environment.

    A revision that `unready` names is made and never ready. Then, by the reference of `Service.reconciling`, the last
    revision that was ready keeps the traffic that it had, whatever the targets say, and the update's operation fails;
    here so does that of every update which leaves it the newest.
    """

    def __init__(
        self,
        serve: Callable[[dict[str, str]], str],
        environment: dict[str, str],
        image: str = "registry/serving@sha256:" + "0" * 64,
        name: str = SERVICE,
    ) -> None:
        super().__init__()
        self.name = name
        self.serve = serve
        self.unready: Callable[[run_v2.RevisionTemplate], Unready | None] = lambda _: None
        self._failed: Unready | None = None
        self.revisions: dict[str, run_v2.RevisionTemplate] = {}
        self.made: list[str] = []
        template = run_v2.RevisionTemplate(
            containers=[
                run_v2.Container(
                    image=image,
                    env=[run_v2.EnvVar(name=k, value=v) for k, v in environment.items()],
                )
            ]
        )
        self.service = run_v2.Service(name=self.name, template=template, traffic=[{"type_": LATEST, "percent": 100}])
        self._revise()
        self._settle()

    def environment(self, revision: str) -> dict[str, str]:
        """Environment of a revision's container."""
        return {v.name: v.value for v in self.revisions[revision].containers[0].env}

    def address(self, revision: str) -> str:
        """Where a revision answers."""
        return self.serve(self.environment(revision))

    @property
    def split(self) -> dict[str, int]:
        """Revision -> percent of users, as it is now."""
        return {status.revision: status.percent for status in self.service.traffic_statuses if status.percent}

    @property
    def pinned(self) -> bool:
        """Whether traffic is held on named revisions instead of following the latest."""
        return not any(target.type_ == LATEST and target.percent for target in self.service.traffic)

    @property
    def updates(self) -> list[Request]:
        """The updates sent."""
        return [request for request in self.requests if request.method == "PATCH"]

    def ask(self, request: Request, policy: Policy) -> None:
        """The service's own permissions; for an update also those on what its revision runs as, and its image."""
        if "/operations/" in request.path:
            policy.require("run.operations.get")
            return
        service = f"service {self.name.rpartition('/')[2]}"
        policy.require("run.services.get" if request.method == "GET" else "run.services.update", service)
        if request.method != "GET":
            account = request.body.get("template", {}).get("serviceAccount", "")
            if account:
                policy.require("iam.serviceAccounts.actAs", f"account {account}")
            policy.require("artifactregistry.repositories.downloadArtifacts", "repository ai-product-photo-detector")

    def route(self, request: Request) -> dict[str, Any]:
        """GET and PATCH of the service."""
        if request.path != f"/v2/{self.name}":
            raise ApiError(404, f"{request.path} not found")
        if request.method == "GET":
            return self._document()
        if request.method != "PATCH":
            raise ApiError(501, request.method)
        body = run_v2.Service(json_format.ParseDict(request.body, run_v2.Service.pb(run_v2.Service())))
        if body.etag != self.service.etag:
            raise ApiError(409, "the service changed since it was read")
        fields = request.query["updateMask"].split(",")
        if "traffic" in fields:
            self.service.traffic = body.traffic
        if "template" in fields and body.template != self.service.template:
            self.service.template = body.template
            self._revise()
        parent = self.name.partition("/services/")[0]
        if self._failed is not None:
            self.service.etag = f'"{len(self.requests)}"'
            revision = self.made[-1]
            said = f"Revision '{revision}' is not ready and cannot serve traffic. {self._failed.message}"
            self.service.terminal_condition = self._condition("Ready", said, "REVISION_FAILED")
            self.service.conditions = [self._condition("ConfigurationsReady", said, self._failed.reason)]
            return self.failing(parent, self._failed.code, said)
        ready = run_v2.Condition(type_="Ready", state=run_v2.Condition.State.CONDITION_SUCCEEDED)
        self.service.terminal_condition = ready
        self.service.conditions = []
        self._settle()
        return self.running(parent, "google.cloud.run.v2.Service", self._document())

    @staticmethod
    def _condition(kind: str, said: str, reason: str) -> run_v2.Condition:
        condition = run_v2.Condition(type_=kind, state=run_v2.Condition.State.CONDITION_FAILED, message=said)
        if reason in run_v2.Condition.CommonReason.__members__:
            condition.reason = run_v2.Condition.CommonReason.__members__[reason]
        if reason in run_v2.Condition.RevisionReason.__members__:
            condition.revision_reason = run_v2.Condition.RevisionReason.__members__[reason]
        return condition

    def _document(self) -> dict[str, Any]:
        return json_format.MessageToDict(run_v2.Service.pb(self.service))

    def _revise(self) -> None:
        name = self.service.template.revision or f"detector-{len(self.made):05d}-gen"
        if name in self.revisions:
            raise ApiError(409, f"revision {name} exists")
        self.revisions[name] = run_v2.RevisionTemplate(run_v2.RevisionTemplate.pb(self.service.template))
        self.made.append(name)
        self.service.latest_created_revision = f"{self.name}/revisions/{name}"
        self._failed = self.unready(self.service.template)
        if self._failed is None:
            self.service.latest_ready_revision = self.service.latest_created_revision

    def _settle(self) -> None:
        latest = self.service.latest_ready_revision.rpartition("/")[2]
        total = sum(target.percent for target in self.service.traffic)
        if total != 100:
            raise ApiError(400, f"traffic adds up to {total}")
        statuses = []
        for target in self.service.traffic:
            revision = latest if target.type_ == LATEST else target.revision
            if revision not in self.revisions:
                raise ApiError(400, f"no revision {revision}")
            uri = self.address(revision) if target.tag else ""
            statuses.append(
                run_v2.TrafficTargetStatus(
                    type_=target.type_, revision=revision, percent=target.percent, tag=target.tag, uri=uri
                )
            )
        self.service.traffic_statuses = statuses
        busiest = max(statuses, key=lambda status: status.percent)
        self.service.uri = self.address(busiest.revision)
        self.service.etag = f'"{len(self.requests)}"'
