"""Vertex AI's models, endpoints and predictions on loopback. Bodies are parsed by Google's own protos."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import proto
from google.cloud import aiplatform_v1 as vertex
from google.protobuf import json_format

from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.policy import Policy

PARENT = "projects/proj/locations/europe-west1"
_NEEDS = {
    ("models", "upload"): "aiplatform.models.upload",
    ("models", "listVersions"): "aiplatform.models.list",
    ("models", "mergeVersionAliases"): "aiplatform.models.update",
    ("models", "import"): "aiplatform.modelEvaluations.import",
    ("models", "evaluations"): "aiplatform.modelEvaluations.list",
    ("models", "deleteVersion"): "aiplatform.models.delete",
    ("models", "DELETE"): "aiplatform.models.delete",
    ("endpoints", "GET"): "aiplatform.endpoints.get",
    ("endpoints", "PATCH"): "aiplatform.endpoints.update",
    ("endpoints", "deployModel"): "aiplatform.endpoints.deploy",
    ("endpoints", "undeployModel"): "aiplatform.endpoints.undeploy",
    ("endpoints", "predict"): "aiplatform.endpoints.predict",
}
"""(kind, method of the API) -> permission, as the reference of the REST API names them."""
_TYPE = "google.cloud.aiplatform.v1"


def parse(kind: type[proto.Message], document: dict[str, Any]) -> Any:
    """A body as Google's proto; an unknown field is an error."""
    return kind(json_format.ParseDict(document, kind.pb(kind())))


def show(message: proto.Message) -> dict[str, Any]:
    """A proto as the API answers it."""
    return json_format.MessageToDict(type(message).pb(message))


class FakeVertex(GoogleRest):
    """One project and region. `serve` gives the address of a server for a model version."""

    def __init__(self, serve: Callable[[str], str] = lambda _: "") -> None:
        super().__init__()
        self.serve = serve
        self.patience_s = 30.0
        """How long a container may take to answer."""
        self.models: dict[str, dict[str, vertex.Model]] = {}
        """Model name -> version -> model."""
        self.evaluations: dict[str, vertex.ModelEvaluation] = {}
        self.endpoints: dict[str, vertex.Endpoint] = {}
        self._ids = 100

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version of a model."""
        return {a: number for number, model in self.models.get(name, {}).items() for a in model.version_aliases}

    def ask(self, request: Request, policy: Policy) -> None:
        """Vertex AI's permissions, all on the project."""
        found = re.search(r"/(models|endpoints)(?:/[^/:]+)?(/evaluations)?(?::(\w+))?$", request.path)
        verb = (found[3] or (found[2] or request.method).removeprefix("/")) if found else ""
        if found and (found[1], verb) in _NEEDS:
            policy.require(_NEEDS[found[1], verb])

    def route(self, request: Request) -> dict[str, Any]:
        """Models, endpoints and predictions."""
        found = re.fullmatch(rf"/v1/({PARENT}/(models|endpoints)(?:/[^/:]+)?)(/evaluations)?(?::(\w+))?", request.path)
        if not found:
            raise ApiError(404, f"{request.path} not found")
        name, kind, verb = found[1], found[2], found[4] or (found[3] or request.method).removeprefix("/")
        handler = getattr(self, f"_{kind}_{verb}", None)
        if handler is None:
            raise ApiError(501, f"{request.method} {request.path}")
        return handler(name, request)

    def _models_upload(self, _: str, request: Request) -> dict[str, Any]:
        body = parse(vertex.UploadModelRequest, {"parent": PARENT, **request.body})
        name = body.parent_model or f"{PARENT}/models/{body.model_id}"
        versions = self.models.setdefault(name, {})
        number = str(max(map(int, versions), default=0) + 1)
        model = body.model
        model.name, model.version_id = name, number
        versions[number] = model
        self._merge(name, number, list(model.version_aliases) + ([] if len(versions) > 1 else ["default"]))
        return self.running(PARENT, f"{_TYPE}.UploadModelResponse", {"model": name, "modelVersionId": number})

    def _models_listVersions(self, name: str, _: Request) -> dict[str, Any]:
        return {"models": [show(model) for model in self._versions(name).values()]}

    def _models_mergeVersionAliases(self, name: str, request: Request) -> dict[str, Any]:
        model, _, number = name.partition("@")
        self._merge(model, number, request.body["versionAliases"])
        return show(self.models[model][number])

    def _models_import(self, name: str, request: Request) -> dict[str, Any]:
        body = parse(vertex.ImportModelEvaluationRequest, {"parent": name, **request.body})
        self.evaluations[name] = body.model_evaluation
        return show(body.model_evaluation)

    def _models_evaluations(self, name: str, _: Request) -> dict[str, Any]:
        known = self.evaluations.get(name)
        return {"modelEvaluations": [] if known is None else [show(known)]}

    def _models_deleteVersion(self, name: str, _: Request) -> dict[str, Any]:
        model, _, number = name.partition("@")
        if "default" in self._versions(model)[number].version_aliases:
            raise ApiError(400, "the default version cannot be deleted")
        del self.models[model][number]
        return self.running(PARENT, "google.protobuf.Empty", {})

    def _models_DELETE(self, name: str, _: Request) -> dict[str, Any]:
        self._versions(name)
        del self.models[name]
        return self.running(PARENT, "google.protobuf.Empty", {})

    def _endpoints_GET(self, name: str, _: Request) -> dict[str, Any]:
        return show(self._endpoint(name))

    def _endpoints_PATCH(self, name: str, request: Request) -> dict[str, Any]:
        assert request.query["updateMask"] == "trafficSplit"
        self._route_traffic(self._endpoint(name), dict(parse(vertex.Endpoint, request.body).traffic_split))
        return show(self._endpoint(name))

    def _endpoints_deployModel(self, name: str, request: Request) -> dict[str, Any]:
        body = parse(vertex.DeployModelRequest, {"endpoint": name, **request.body})
        endpoint = self._endpoint(name)
        self._ids += 1
        deployed = body.deployed_model
        deployed.id = str(self._ids)
        endpoint.deployed_models = [*endpoint.deployed_models, deployed]
        split = {deployed.id if key == "0" else key: share for key, share in body.traffic_split.items()}
        self._route_traffic(endpoint, split)
        return self.running(PARENT, f"{_TYPE}.DeployModelResponse", {"deployedModel": show(deployed)})

    def _endpoints_undeployModel(self, name: str, request: Request) -> dict[str, Any]:
        body = parse(vertex.UndeployModelRequest, {"endpoint": name, **request.body})
        endpoint = self._endpoint(name)
        endpoint.deployed_models = [m for m in endpoint.deployed_models if m.id != body.deployed_model_id]
        self._route_traffic(endpoint, dict(body.traffic_split))
        return self.running(PARENT, f"{_TYPE}.UndeployModelResponse", {})

    def _endpoints_predict(self, name: str, request: Request) -> dict[str, Any]:
        parse(vertex.PredictRequest, {"endpoint": name, **request.body})
        endpoint = self._endpoint(name)
        busiest = max(endpoint.traffic_split, key=lambda key: endpoint.traffic_split[key])
        model = next(m.model for m in endpoint.deployed_models if m.id == busiest)
        try:
            answer = httpx.post(
                f"{self.serve(model)}/vertex/predict", json=request.body, trust_env=False, timeout=self.patience_s
            )
        except httpx.TimeoutException as error:
            raise ApiError(504, "the container did not answer in time") from error
        if answer.status_code != 200:
            raise ApiError(answer.status_code, "the container answered an error")
        return {**answer.json(), "deployedModelId": busiest, "model": model}

    def _versions(self, name: str) -> dict[str, vertex.Model]:
        if name not in self.models:
            raise ApiError(404, f"{name} not found")
        return self.models[name]

    def _endpoint(self, name: str) -> vertex.Endpoint:
        if name not in self.endpoints:
            raise ApiError(404, f"{name} not found")
        return self.endpoints[name]

    def _merge(self, name: str, number: str, aliases: list[str]) -> None:
        for alias in aliases:
            bare = alias.removeprefix("-")
            for version, model in self.models[name].items():
                kept = [a for a in model.version_aliases if a != bare]
                model.version_aliases = [*kept, bare] if version == number and bare == alias else kept

    @staticmethod
    def _route_traffic(endpoint: vertex.Endpoint, split: dict[str, int]) -> None:
        known = {model.id for model in endpoint.deployed_models}
        if set(split) - known:
            raise ApiError(400, f"no deployed model {set(split) - known}")
        if split and sum(split.values()) != 100:
            raise ApiError(400, f"traffic adds up to {sum(split.values())}")
        endpoint.traffic_split = split
