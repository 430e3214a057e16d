"""A stand-in for hashicorp/google that can plan and apply, served by the same plugin library as the one that validates.

GOOGLE_SCHEMA names the schema (JSON, made from the provider's typed bindings), GOOGLE_LIVE a file that plays the
project: what is applied is written there, and what stands there is what a refresh reads - so a release can be played by
editing it. Values that Google would give out are spelt as Google spells them. Not Google: no enums, no API rules.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgpack
import tf.provider
import tf.runner
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

SCHEMA = json.loads(Path(os.environ["GOOGLE_SCHEMA"]).read_text())
LIVE = Path(os.environ["GOOGLE_LIVE"])
NESTING = {"list": pb.Schema.NestedBlock.LIST, "set": pb.Schema.NestedBlock.SET, "single": pb.Schema.NestedBlock.SINGLE}
UNKNOWN = msgpack.ExtType(0, b"\0")
NUMBER = "123456789012"
"""Of the project."""


def block(document: dict[str, Any]) -> Any:
    """A block of the schema, as the protocol has it."""
    attributes = [
        pb.Schema.Attribute(
            name=name,
            type=json.dumps(found["type"]).encode(),
            required=found["required"],
            optional=found["optional"],
            computed=found["computed"],
        )
        for name, found in document["attributes"].items()
    ]
    nested = [
        pb.Schema.NestedBlock(
            type_name=name,
            nesting=NESTING[found["nesting"]],
            min_items=found["min"],
            max_items=found["max"],
            block=block(found["block"]),
        )
        for name, found in document["blocks"].items()
    ]
    return pb.Schema.Block(attributes=attributes, block_types=nested)


def schema(document: dict[str, Any]) -> Any:
    """One resource's schema."""
    return pb.Schema(version=0, block=block(document))


def read(value: Any) -> Any:
    """A value of the protocol; an unknown one stays a msgpack extension."""
    return msgpack.unpackb(value.msgpack, strict_map_key=False) if value.msgpack else None


def written(value: Any) -> Any:
    """The same, back."""
    return pb.DynamicValue(msgpack=msgpack.packb(value))


def given(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """What Google gives out for a resource: names, addresses, identities."""
    project = values.get("project") or "example-project"
    if kind == "google_service_account":
        email = f"{values['account_id']}@{project}.iam.gserviceaccount.com"
        name = f"projects/{project}/serviceAccounts/{email}"
        return {"email": email, "member": f"serviceAccount:{email}", "name": name, "id": name}
    if kind == "google_iam_workload_identity_pool":
        name = f"projects/{NUMBER}/locations/global/workloadIdentityPools/{values['workload_identity_pool_id']}"
        return {"name": name, "id": name}
    if kind == "google_iam_workload_identity_pool_provider":
        pool = values["workload_identity_pool_id"]
        name = f"projects/{NUMBER}/locations/global/workloadIdentityPools/{pool}"
        return {"name": f"{name}/providers/{values['workload_identity_pool_provider_id']}"}
    if kind == "google_project_iam_custom_role":
        return {"name": f"projects/{project}/roles/{values['role_id']}"}
    if kind == "google_secret_manager_secret":
        return {"id": f"projects/{project}/secrets/{values['secret_id']}"}
    if kind == "google_secret_manager_secret_version":
        return {"version": "1"}
    if kind == "google_cloud_run_v2_service":
        return {"uri": f"https://{values['name']}-{NUMBER}.{values['location']}.run.app"}
    if kind == "google_artifact_registry_repository":
        return {"name": values["repository_id"]}
    return {}


def live() -> dict[str, Any]:
    """The project as it stands: `type name` -> values."""
    try:
        found: dict[str, Any] = json.loads(LIVE.read_text())
    except FileNotFoundError:
        return {}
    return found


def key(kind: str, values: dict[str, Any]) -> str:
    """By what a resource is found again."""
    return f"{kind} {values['id']}"


class Provider(rpc.ProviderServicer):  # type: ignore[misc] # gRPC's generated code is untyped
    """The calls that Terraform makes."""

    def __init__(self, _: Any) -> None:
        """Take the provider that the library would wrap, and ignore it."""

    def GetMetadata(self, request: Any, context: Any) -> Any:
        resources = [pb.GetMetadata.ResourceMetadata(type_name=name) for name in SCHEMA["resources"]]
        sources = [pb.GetMetadata.DataSourceMetadata(type_name=name) for name in SCHEMA["data"]]
        capabilities = pb.ServerCapabilities()
        return pb.GetMetadata.Response(server_capabilities=capabilities, resources=resources, data_sources=sources)

    def GetProviderSchema(self, request: Any, context: Any) -> Any:
        return pb.GetProviderSchema.Response(
            provider=schema(SCHEMA["provider"]),
            resource_schemas={name: schema(found) for name, found in SCHEMA["resources"].items()},
            data_source_schemas={name: schema(found) for name, found in SCHEMA["data"].items()},
        )

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request: Any, context: Any) -> Any:
        return pb.ConfigureProvider.Response()

    def GetFunctions(self, request: Any, context: Any) -> Any:
        return pb.GetFunctions.Response()

    def StopProvider(self, request: Any, context: Any) -> Any:
        return pb.StopProvider.Response()

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:
        return pb.UpgradeResourceState.Response(upgraded_state=written(json.loads(request.raw_state.json)))

    def ReadResource(self, request: Any, context: Any) -> Any:
        state = read(request.current_state)
        standing = live().get(key(request.type_name, state), state)
        return pb.ReadResource.Response(new_state=written({**state, **standing}))

    def ReadDataSource(self, request: Any, context: Any) -> Any:
        asked = read(request.config)
        number = {"number": NUMBER} if request.type_name == "google_project" else {}
        return pb.ReadDataSource.Response(
            state=written({**asked, **number, "id": asked.get("id") or request.type_name})
        )

    def PlanResourceChange(self, request: Any, context: Any) -> Any:
        before, proposed, wanted = read(request.prior_state), read(request.proposed_new_state), read(request.config)
        if proposed is not None:
            planned = _kept(SCHEMA["resources"][request.type_name], before, proposed, wanted)
            if before is None:
                planned |= given(request.type_name, planned)
                unsaid = any(isinstance(value, msgpack.ExtType) for value in planned.values() if value is not None)
                identity = planned.get("id") or _identity(request.type_name, planned)
                found = _made_up(SCHEMA["resources"][request.type_name], identity, planned) | {"id": identity}
                # what is told apart by a value that nobody knows yet is known when that is
                planned |= dict.fromkeys(found, UNKNOWN) if unsaid else found
            if request.type_name == "google_secret_manager_secret_version" and isinstance(planned["secret_data"], str):
                # other content is another version
                planned["version"] = str(int(hashlib.sha256(planned["secret_data"].encode()).hexdigest()[:4], 16))
        else:
            planned = None
        return pb.PlanResourceChange.Response(planned_state=written(planned), legacy_type_system=True)

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:
        planned, before = read(request.planned_state), read(request.prior_state)
        project = live()
        if planned is None:
            project.pop(key(request.type_name, before), None)
        else:
            planned = _settled(planned)
            project[key(request.type_name, planned)] = planned
        LIVE.write_text(json.dumps(project))
        return pb.ApplyResourceChange.Response(new_state=written(planned), legacy_type_system=True)


def _kept(found: dict[str, Any], before: Any, proposed: Any, wanted: Any) -> dict[str, Any]:
    """The plan: what is asked for, and of what Google fills in, what stands."""
    planned = dict(proposed)
    for name in found["attributes"]:
        if name.endswith("_wo"):
            planned[name] = None  # goes to Google alone
        elif wanted.get(name) is None and before is not None and proposed.get(name) is None:
            planned[name] = before.get(name)
        elif isinstance(planned.get(name), msgpack.ExtType) and wanted.get(name) is None:
            planned[name] = None
    return planned


def _identity(kind: str, values: dict[str, Any]) -> str:
    """What a resource is told apart by, where Google's own id is not needed."""
    said = {name: value for name, value in values.items() if isinstance(value, str)}
    return f"{kind}/" + json.dumps(said, sort_keys=True)


def _made_up(found: dict[str, Any], identity: str, planned: dict[str, Any]) -> dict[str, str]:
    """Texts that only Google knows beforehand."""
    short = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return {
        name: f"{name}-{short}"
        for name, attribute in found["attributes"].items()
        if attribute["type"] == "string" and not attribute["optional"] and not attribute["required"]
        if planned.get(name) is None
    }


def _settled(value: Any) -> Any:
    """The same without unknowns: a made thing has only known values."""
    if isinstance(value, msgpack.ExtType):
        return "made"
    if isinstance(value, dict):
        return {name: _settled(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_settled(part) for part in value]
    return value


class Named:
    """Under which name the plugin is asked for."""

    def full_name(self) -> str:
        """As a configuration's `required_providers` spells it, with the registry that it is looked up in."""
        return os.environ["GOOGLE_NAME"]


tf.provider.ProviderServicer = Provider
tf.runner.run_provider(Named(), sys.argv)
