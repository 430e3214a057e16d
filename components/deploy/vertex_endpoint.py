"""A version on a Vertex AI endpoint: tried on an endpoint without users, then given its share of the real one."""

import base64
import json
import logging
import secrets
from contextlib import ExitStack
from typing import Any, Final

from components.artifacts.model_version import ModelVersion
from components.deploy.config import DeployConfig
from components.deploy.rollout import Serving, Started, shrunk
from components.deploy.smoke import Answer, Prober
from components.platform.google_cloud import connect, google_errors, patience
from serving.platform.errors import NotAnsweringError, SmokeError, StageError

_log = logging.getLogger(__name__)
_NEW: Final = "0"
"""Vertex's name, in a traffic split, for the model that the same request deploys."""


class VertexEndpointRollout:
    """One model version's way to 100 % of an endpoint's traffic.

    Vertex cannot address one model of a shared endpoint, so the smoke test runs on a second endpoint without users.
    """

    canary = True
    images = ("", "")

    def __init__(self, version: ModelVersion, config: DeployConfig) -> None:
        from google.cloud import aiplatform_v1 as vertex

        if not version.vertex_resource:
            raise StageError(f"{version.uri} is not in Vertex Model Registry; register it with register.vertex true")
        if config.accelerator_type and config.accelerator_type not in vertex.AcceleratorType.__members__:
            raise StageError(f"deploy.accelerator_type {config.accelerator_type!r} is unknown, e.g. NVIDIA_TESLA_T4")
        self._version, self._config = version, config
        parent = f"projects/{config.project}/locations/{config.region}/endpoints"
        self._endpoint, self._smoke_endpoint = (
            name if "/" in name else f"{parent}/{name}" for name in (config.endpoint, config.smoke_endpoint)
        )
        host = f"{config.region}-aiplatform.googleapis.com"
        with google_errors("Vertex AI endpoints"):
            self._endpoints = connect(vertex.EndpointServiceClient, host, config.vertex_api_endpoint)
            self._predictions = connect(vertex.PredictionServiceClient, host, config.vertex_api_endpoint)
        self._before: dict[str, int] | None = None
        # one of a kind, so that a deployment whose answer was lost is found again and taken away
        self._label = f"{version.name}-v{version.version}-{secrets.token_hex(3)}"

    def begin(self) -> str:
        """Read the endpoint's traffic."""
        self._before = dict(self._get(self._endpoint).traffic_split)
        return json.dumps({"split": self._before, "label": self._label})

    def resume(self, begun: str, serving: ModelVersion | None) -> None:  # noqa: ARG002 - its deployments tell enough
        """Take up the traffic and the deployments of a rollout that was cut short."""
        memory = json.loads(begun)
        self._before, self._label = memory["split"], memory["label"]

    def start(self) -> Started:
        """Deploy to the smoke endpoint."""
        self._deploy(self._smoke_endpoint, {_NEW: 100})
        return Started(self._prober(self._smoke_endpoint), self._version.version)

    def shift(self, percent: int) -> Prober:
        """Give it a share of the real endpoint, deploying it there at 0 % first."""
        mine = self._mine(self._endpoint)
        if mine is None:
            mine = self._deploy(self._endpoint, {**(self._before or {}), _NEW: 0} if self._before else {_NEW: 100})
        if self._before:
            self._split({**shrunk(self._before, 100 - percent), mine: percent})
        return self._prober(self._endpoint)

    def finish(self) -> Serving:
        """Take the smoke deployment away."""
        self._undeploy(self._smoke_endpoint)
        return Serving(f"https://{self._config.region}-aiplatform.googleapis.com/v1/{self._endpoint}:predict")

    def settle(self) -> None:
        """Undeploy the models without traffic: a replica costs the same with and without."""
        for old in self._before or {}:
            try:
                self._undeploy_model(self._endpoint, old)
            except StageError as error:
                _log.warning("the previous model stays deployed at 0 %%: %s", error)

    def restore(self) -> None:
        """The traffic split as it was, and no deployment of this version."""
        if self._before is None:
            return
        with ExitStack() as steps:  # last in, first out; each is tried even if another fails
            steps.callback(self._undeploy, self._smoke_endpoint)
            steps.callback(self._undeploy, self._endpoint)
            if self._before and dict(self._get(self._endpoint).traffic_split) != self._before:
                self._split(self._before)

    def _deploy(self, endpoint: str, split: dict[str, int]) -> str:
        from google.cloud import aiplatform_v1 as vertex

        config = self._config
        machine = vertex.MachineSpec(machine_type=config.machine_type)
        if config.accelerator_count:
            machine.accelerator_type = vertex.AcceleratorType.__members__[config.accelerator_type]
            machine.accelerator_count = config.accelerator_count
        model = vertex.DeployedModel(
            model=self._version.vertex_resource,
            display_name=self._label,
            service_account=config.service_account,
            dedicated_resources=vertex.DedicatedResources(
                machine_spec=machine, min_replica_count=config.min_replicas, max_replica_count=config.max_replicas
            ),
        )
        with google_errors(f"deploy to {_short(endpoint)}"):
            # not asked again after a lost answer: a second deployment would be a second machine
            operation = self._endpoints.deploy_model(
                endpoint=endpoint, deployed_model=model, traffic_split=split, timeout=config.request_timeout_s
            )
            done = operation.result(timeout=config.operation_timeout_s)
        return str(done.deployed_model.id)

    def _mine(self, endpoint: str) -> str | None:
        """Id of the model that this rollout deployed to an endpoint, or None."""
        deployed = self._get(endpoint).deployed_models
        return next((str(model.id) for model in deployed if model.display_name == self._label), None)

    def _undeploy(self, endpoint: str) -> None:
        mine = self._mine(endpoint)
        if mine is not None:
            self._undeploy_model(endpoint, mine)

    def _undeploy_model(self, endpoint: str, model: str) -> None:
        left = {key: share for key, share in self._get(endpoint).traffic_split.items() if key != model and share}
        with google_errors(f"undeploy from {_short(endpoint)}"):
            self._endpoints.undeploy_model(
                request={"endpoint": endpoint, "deployed_model_id": model, "traffic_split": left},
                **self._patiently(),
            ).result(timeout=self._config.operation_timeout_s)

    def _split(self, split: dict[str, int]) -> None:
        from google.cloud import aiplatform_v1 as vertex

        with google_errors(f"split the traffic of {_short(self._endpoint)}"):
            self._endpoints.update_endpoint(
                endpoint=vertex.Endpoint(name=self._endpoint, traffic_split=split),
                update_mask={"paths": ["traffic_split"]},
                **self._patiently(),
            )

    def _get(self, endpoint: str) -> Any:
        with google_errors(f"read {_short(endpoint)}"):
            return self._endpoints.get_endpoint(name=endpoint, **self._patiently())

    def _patiently(self) -> dict[str, Any]:
        return {"retry": patience(self._config.retry_timeout_s), "timeout": self._config.request_timeout_s}

    def _prober(self, endpoint: str) -> "EndpointProber":
        return EndpointProber(self._predictions, endpoint, self._config.request_timeout_s)


class EndpointProber:
    """Asks an endpoint through Vertex's own predict call."""

    def __init__(self, client: Any, endpoint: str, timeout_s: float) -> None:
        self._client, self._endpoint, self._timeout_s = client, endpoint, timeout_s

    def ask(self, name: str, image: bytes) -> Answer:
        """One instance `{"b64": …}`."""
        from google.api_core.exceptions import GoogleAPICallError, RetryError, ServiceUnavailable, TooManyRequests
        from google.protobuf import json_format, struct_pb2

        instance = json_format.ParseDict({"b64": base64.b64encode(image).decode()}, struct_pb2.Value())
        try:
            response = self._client.predict(
                endpoint=self._endpoint, instances=[instance], retry=None, timeout=self._timeout_s
            )
        except (ServiceUnavailable, TooManyRequests, RetryError, OSError) as error:
            raise NotAnsweringError(f"{_short(self._endpoint)}: {error}") from error
        except GoogleAPICallError as error:
            raise SmokeError(f"smoke test: {_short(self._endpoint)} answered {error.code} to {name}") from error
        try:
            (said,) = response.predictions
            return Answer(str(said["prediction"]), float(said["probability"]), str(said["model_version"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SmokeError(f"smoke test: {_short(self._endpoint)} answered without a verdict to {name}") from error


def _short(endpoint: str) -> str:
    return f"endpoint {endpoint.rpartition('/')[2]}"
