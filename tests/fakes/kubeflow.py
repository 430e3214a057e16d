"""A Kubeflow Pipelines API server v2beta1 on loopback; bodies are read by KFP's own models, unknown fields refused."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.vertex_pipelines import stages_of

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def strict(model: Any, document: Any) -> Any:
    """A document's fields, each one that KFP's model knows; nested models are read the same way."""
    names = {theirs: ours for ours, theirs in model.attribute_map.items()}
    unknown = set(document) - set(names)
    if unknown:
        raise ApiError(400, f"{model.__name__} has no {sorted(unknown)}")
    for key, value in document.items():
        nested = getattr(kfp_server_api, model.openapi_types[names[key]], None)
        if nested is not None and hasattr(nested, "attribute_map") and isinstance(value, dict):
            strict(nested, value)
    return document


_ROOT = re.compile(r"(^[a-z][a-z0-9]+:///?)([^/?]+)(/[^?]*)?(\?.+)?$")


class FakeKubeflow(GoogleRest):
    """Experiments, runs that advance at each look, and recurring runs.

    By default a standalone server: one user, whom nobody asks who he is, and one namespace, whatever a request says.
    With a `token` it has many: a request needs that user's token and a namespace that is his.
    """

    def __init__(self, fails: str = "", refuses: bool = False) -> None:
        super().__init__()
        self.fails, self.refuses = fails, refuses
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.token = ""
        """Of the one user; set: the server has many users."""
        self.namespaces = {"team"}
        """Those in which that user may run something."""
        self.accounts = {"pipeline-runner", "default-editor"}
        """Service accounts that there are."""
        self._made = 0

    @property
    def changes(self) -> list[str]:
        """`METHOD path` of the requests that could change something, in order."""
        return [f"{r.method} {r.path.rpartition('/')[2]}" for r in self.requests if r.method != "GET"]

    def route(self, request: Request) -> dict[str, Any]:
        """The API."""
        if request.path.endswith("/healthz"):
            return {"multi_user": bool(self.token)}
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            raise ApiError(401, "Request header error: there is no user identity header.")
        match = re.fullmatch(r"/apis/v2beta1/(experiments|runs|recurringruns)(?:/([^/:]+))?(?::(\w+))?", request.path)
        if match is None:
            raise ApiError(404, f"{request.path} not found")
        kind, identity, verb = match[1], match[2] or "", match[3] or request.method
        answered: dict[str, Any] = getattr(self, f"_{kind}")(identity, verb, request)
        return answered

    def _experiments(self, identity: str, verb: str, request: Request) -> dict[str, Any]:
        if verb == "POST":
            body = strict(kfp_server_api.V2beta1Experiment, request.body)
            self._authorise(body.get("namespace") or "")
            self.experiments[body["display_name"]] = {**body, "experiment_id": f"e{len(self.experiments) + 1}"}
            return self.experiments[body["display_name"]]
        if identity:
            return next(e for e in self.experiments.values() if e["experiment_id"] == identity)
        self._authorise(request.query.get("namespace", ""))
        asked = self._asked(request) if "filter" in request.query else None
        return {"experiments": [e for name, e in self.experiments.items() if asked in (None, name)]}

    def _authorise(self, namespace: str) -> None:
        """As its experiment_server.go: a server of one user asks nobody and has one namespace."""
        if not self.token:
            return
        if not namespace:
            raise ApiError(400, "An experiment cannot have an empty namespace in multi-user mode")
        if namespace not in self.namespaces:
            raise ApiError(403, f"User 'ada' is not authorized with reason: no role in namespace {namespace!r}")

    def _runs(self, identity: str, verb: str, request: Request) -> dict[str, Any]:
        if verb == "POST" and not identity:
            body = self._job(strict(kfp_server_api.V2beta1Run, request.body))
            run_id = f"run-{len(self.runs) + 1}"
            self.runs[run_id] = {**body, "run_id": run_id, "state": "PENDING", "created_at": _BEGAN.isoformat()}
            self.looks[run_id] = 0
            self._start(self.runs[run_id])
            return self.runs[run_id]
        if identity not in self.runs:
            raise ApiError(404, f"run {identity} not found")
        if verb == "terminate":
            self.runs[identity]["state"] = "CANCELED"
            return {}
        return self._advance(identity)

    def _recurringruns(self, identity: str, verb: str, request: Request) -> dict[str, Any]:
        if verb == "POST" and not identity:
            body = self._job(strict(kfp_server_api.V2beta1RecurringRun, request.body))
            if len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
                raise ApiError(400, "cron needs six fields")
            self._made += 1
            made = (_BEGAN + timedelta(minutes=self._made)).isoformat()
            self.recurring[f"rr{self._made}"] = {**body, "recurring_run_id": f"rr{self._made}", "created_at": made}
            return self.recurring[f"rr{self._made}"]
        if not identity:
            return {"recurringRuns": [r for r in self.recurring.values() if r["display_name"] == self._asked(request)]}
        if identity not in self.recurring:
            raise ApiError(404, f"recurring run {identity} not found")
        if verb == "DELETE":
            del self.recurring[identity]
        elif verb in ("enable", "disable"):
            self.recurring[identity]["mode"] = verb.upper()
        return {}

    def _start(self, run: dict[str, Any]) -> None:
        """What the server takes and its cluster then refuses: a pod without its account, a driver without a bucket."""
        account, root = run.get("service_account"), (run.get("runtime_config") or {}).get("pipeline_root")
        found = _ROOT.fullmatch(root) if root else None
        said = ""
        if account and account not in self.accounts:
            said = f'pods is forbidden: error looking up service account: serviceaccount "{account}" not found'
        elif root and (found is None or found[1] not in ("gs://", "s3://", "minio://", "mem://")):
            said = f'parse bucket config failed: unsupported Cloud bucket: "{root}"'
        if said:
            run |= {"state": "FAILED", "finished_at": _BEGAN.isoformat(), "error": {"code": 9, "message": said}}

    def _job(self, body: dict[str, Any]) -> dict[str, Any]:
        spec = body["pipeline_spec"]
        json_format.ParseDict(spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec())
        return body

    def _advance(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        if run["state"] in ("CANCELED", "FAILED"):
            return run
        self.looks[run_id] += 1
        spec = run["pipeline_spec"]
        stages = stages_of(spec.get("pipeline_spec", spec))
        if not run["runtime_config"].get("parameters", {}).get("auto_deploy", True):
            stages = stages[: stages.index("register") + 1]
        last = self.fails or ("quality-gate" if self.refuses else stages[-1])
        done = stages[: min(1 + self.looks[run_id], stages.index(last) + 1)]
        run["run_details"] = {
            "task_details": [
                {"display_name": stage, "state": "FAILED" if stage == self.fails else "SUCCEEDED"} for stage in done
            ]
        }
        run["state"] = "RUNNING"
        if done[-1] == last:
            run["state"] = "FAILED" if self.fails else "SUCCEEDED"
            run["finished_at"] = (_BEGAN + timedelta(minutes=len(done))).isoformat()
            if self.fails:
                run["error"] = {"code": 2, "message": f"{self.fails} says why"}
        return run

    @staticmethod
    def _asked(request: Request) -> str:
        predicate = json.loads(request.query["filter"])["predicates"][0]
        return str(predicate.get("stringValue") or predicate.get("string_value"))
