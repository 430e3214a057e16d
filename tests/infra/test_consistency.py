"""One name, one port, one setting: Dockerfile, compose, Terraform, workflows, configuration and server say the same."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import yaml

from components.deploy.config import DeployConfig
from components.register.config import RegisterConfig
from pipelines.settings.names import Stage
from pipelines.settings.pipeline import PipelineConfig
from pipelines.settings.places import ImagesConfig
from serving.platform.settings import QUIET
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
PROJECT = "ai-product-photo-detector"
API_PORT, UI_PORT, MLFLOW_PORT = 8080, 8501, 5000
SETTINGS = {name.upper() for name in Settings.model_fields}
# read by the process or its libraries, not by Settings
OF_THE_PLATFORM = {"PYTHONPATH", "GIT_SHA", "HOME", "SETTINGS_FILE"} | set(QUIET)
# made by hand where they are used: nothing in Terraform knows them
BY_HAND = {"ATTESTATIONS", "TORCH_CPU_INDEX", "TORCH_CUDA_INDEX"}


def stages() -> dict[str, str]:
    """Target -> its lines in the Dockerfile."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def stage_environment(target: str) -> dict[str, str]:
    """The ENV of one target itself (not of what it builds on)."""
    text = stages()[target].replace("\\\n", " ")
    return dict(pair.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for pair in line.split())


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "infra" / name).read_text())
    return document["services"]


def terraform() -> str:
    return "\n".join(path.read_text() for path in sorted(ROOT.glob("infra/terraform/**/*.tf")))


def module(name: str) -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "infra/terraform/modules" / name).glob("*.tf")))


def workflows() -> dict[str, str]:
    paths = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob(".github/actions/*/action.yml")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


def published(service: dict[str, Any]) -> list[int]:
    return [int(mapping.rsplit(":", 1)[1]) for mapping in service.get("ports", [])]


def routes() -> set[str]:
    """Paths that the server answers."""
    from serving.app import create_app

    return set(create_app(Settings()).openapi()["paths"])


def test_ports_are_the_same_everywhere() -> None:
    services = compose()
    for target, port in {"serving": API_PORT, "ui": UI_PORT, "mlflow": MLFLOW_PORT}.items():
        assert f"EXPOSE {port}" in stages()[target]
    assert published(services["api"]) == [API_PORT]
    assert published(services["ui"]) == [UI_PORT]
    assert published(services["mlflow"]) == [MLFLOW_PORT]
    assert published(services["prometheus"]) == [9090]
    assert published(services["grafana"]) == [3000]
    assert Settings.model_fields["port"].default == API_PORT
    assert int(stage_environment("serving")["PORT"]) == API_PORT
    assert RegisterConfig().container_port == API_PORT
    ports = re.findall(r"(?:container_port|\bport) += (\d+)", module("cloud-run"))
    assert set(ports) == {str(API_PORT)}
    assert services["ui"]["environment"]["API_URL"] == stage_environment("ui")["API_URL"] == f"http://api:{API_PORT}"


def test_every_port_named_in_the_docs_is_published() -> None:
    known = {port for service in compose().values() for port in published(service)}
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("README.md")]
    named = {
        int(port)
        for page in pages
        for port in re.findall(r"https?://(?:localhost|127\.0\.0\.1):(\d+)", page.read_text())
    }
    assert named <= known


def test_published_ports_bind_to_loopback_unless_told_otherwise() -> None:
    mappings = [mapping for service in compose().values() for mapping in service.get("ports", [])]
    assert mappings
    assert all(mapping.startswith("${BIND:-127.0.0.1}:") for mapping in mappings)


def test_images_bear_one_name_each() -> None:
    images = {name: getattr(ImagesConfig(), name) for name in ImagesConfig.model_fields}
    assert images == {name: f"{PROJECT}/{name}:dev" for name in images}
    assert set(images) <= set(stages())
    for stage in get_args(Stage):
        text = (ROOT / "components" / stage / "component.py").read_text()
        assert f'base_image="{ImagesConfig().of(stage)}"' in text
    for service in compose().values():
        if "build" in service:
            assert service["image"] == f"{PROJECT}/{service['build']['target']}:dev"
            assert service["build"]["target"] in stages()
    built = re.findall(r"^          target: (\S+)$", workflows()[".github/workflows/images.yml"], re.MULTILINE)
    assert set(images) <= set(built) <= set(stages())
    asked = {
        target
        for text in workflows().values()
        for line in re.findall(r"targets: '(\[.*\])'", text)
        for target in yaml.safe_load(line)
    }
    assert asked <= set(built)


def test_every_image_runs_as_the_same_unprivileged_user() -> None:
    finals = ["pipeline", "train", "local", "mlflow", "ui", "serving"]
    for target in finals:
        assert "USER 10001:10001" in stages()[target], target
        assert "HEALTHCHECK" in stages()[target], target
        assert "org.opencontainers.image.revision" in stages()[target], target
    assert "# syntax=" not in DOCKERFILE


def test_settings_given_to_the_server_are_settings_it_has() -> None:
    given = {
        "Dockerfile": set(stage_environment("serving")),
        "compose.yaml": set(compose()["api"]["environment"]),
        "compose.prod.yaml": set(compose("compose.prod.yaml")["api"]["environment"]),
        "cloud-run": set(re.findall(r"^ {10}([A-Z_]+) += ", module("cloud-run"), re.MULTILINE)) | {"API_KEYS"},
        ".env.example": set(re.findall(r"^([A-Z_]+)=", (ROOT / "infra/.env.example").read_text(), re.MULTILINE))
        - {"GF_SECURITY_ADMIN_PASSWORD", "API_KEY"},
    }
    assert {place: names - SETTINGS - OF_THE_PLATFORM for place, names in given.items()} == {
        place: set() for place in given
    }


def test_probes_ask_routes_that_the_server_has() -> None:
    paths = routes()
    asked = set(re.findall(r'path += "(/\w+)"', module("cloud-run") + module("monitoring")))
    asked |= set(re.findall(r"'8080'\) \+ '(/\w+)'", stages()["serving"]))
    assert asked
    assert asked <= paths


def test_model_and_registry_are_the_same_in_compose() -> None:
    services = compose()
    config = PipelineConfig()
    assert services["api"]["environment"]["MODEL_URI"] == f"models:/{config.tracking.model_name}@champion"
    server = f"http://mlflow:{MLFLOW_PORT}"
    assert (
        services["api"]["environment"]["MLFLOW_TRACKING_URI"]
        == services["bootstrap"]["environment"]["AIDETECT_TRACKING__URI"]
        == server
    )
    assert server.removeprefix("http://") in stage_environment("mlflow")["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert services["api"]["environment"]["RATE_LIMIT_STORAGE_URI"].startswith("redis://redis:")


def test_compose_services_are_hardened_and_bounded() -> None:
    for name, service in compose().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory"}, name
        assert not service["image"].endswith(":latest"), name
        assert ":" in service["image"], name


def test_terraform_makes_the_service_that_deploy_updates() -> None:
    platform = module("platform")
    default = re.search(r'variable "service" \{[^}]*default += "([^"]+)"', platform)
    assert default is not None
    assert default[1] == DeployConfig().service
    ignored = re.search(r"ignore_changes = \[(.*?)\]\n  \}", module("cloud-run"), re.DOTALL)
    assert ignored is not None
    assert {"traffic", "template[0].containers[0].image", "template[0].containers[0].env"} <= {
        line.strip(" ,") for line in ignored[1].splitlines()
    }


def test_terraform_alerts_on_metrics_that_the_server_exports() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "serving/telemetry").glob("*.py"))
    named = set(
        re.findall(r"\b(aidetect_[a-z_]+|http_requests_total|http_request_duration_seconds)\b", module("monitoring"))
    )
    assert named
    assert {metric for metric in named if f'"{metric}"' not in source} == set()


def alert_policies() -> dict[str, str]:
    """Name -> PromQL of the alert policies that ask the server's own metrics."""
    block = re.search(r"policies = var\.metrics_scraped \? \{(.*?)\n  \} : \{\}", module("monitoring"), re.DOTALL)
    assert block is not None
    found = re.findall(r'^    ([a-z-]+) = \{\n +query += "(.*)"$', block[1], re.MULTILINE)
    return {name: query.replace('\\"', '"') for name, query in found}


def test_terraform_alerts_are_those_of_prometheus() -> None:
    document = yaml.safe_load((ROOT / "infra/prometheus/rules/alerts.yml").read_text())
    rules = {rule["alert"]: " ".join(rule["expr"].split()) for group in document["groups"] for rule in group["rules"]}
    policies = {name.title().replace("-", ""): query for name, query in alert_policies().items()}
    assert policies
    assert policies == {name: rules[name] for name in policies}


def test_terraform_alerts_name_runbooks_that_exist() -> None:
    pages = set(re.findall(r"runbook}/([a-z-]+\.md)", module("monitoring")))
    pages |= {"error-budget.md", "latency-budget.md"} | {f"{name}.md" for name in alert_policies()}
    assert {page for page in pages if not (ROOT / "docs/runbooks" / page).is_file()} == set()


def test_workflow_variables_are_what_terraform_hands_out() -> None:
    used = {name for text in workflows().values() for name in re.findall(r"vars\.([A-Z_]+)", text)}
    block = re.search(r'output "github_variables".*?value = \{(.*?)\n  \}', module("platform"), re.DOTALL)
    assert block is not None
    handed = set(re.findall(r"^    ([A-Z_]+) += ", block[1], re.MULTILINE))
    assert used - BY_HAND == handed


def test_workflow_environment_addresses_keys_of_the_configuration() -> None:
    named = {name for text in workflows().values() for name in re.findall(r"AIDETECT_([A-Z_]+__[A-Z_]+):", text)}
    named |= {
        name.removeprefix("AIDETECT_")
        for service in compose().values()
        for name in service.get("environment", {})
        if name.startswith("AIDETECT_")
    }
    keys = {(section, key) for section, key in (name.lower().split("__") for name in named)}
    sections = {(field.alias or name): field.annotation for name, field in PipelineConfig.model_fields.items()}
    unknown = {
        (section, key)
        for section, key in keys
        if section not in sections or key not in getattr(sections[section], "model_fields", {})
    }
    assert keys
    assert unknown == set()


def test_workflows_call_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {
        target
        for text in workflows().values()
        for target in re.findall(r"run: make ([a-z][a-z-]*)\s*$", text, re.MULTILINE)
    }
    assert called
    assert called - targets == set()


def test_third_party_actions_are_pinned_by_sha_and_once() -> None:
    pins: dict[str, set[str]] = {}
    for file, text in workflows().items():
        for uses, comment in re.findall(r"uses: (\S+)( # v[\d.]+)?", text):
            if uses.startswith("./"):
                assert (ROOT / uses).exists(), f"{file}: {uses}"
                continue
            action, _, ref = uses.partition("@")
            assert re.fullmatch(r"[0-9a-f]{40}", ref), f"{file}: {uses} is not pinned by sha"
            assert comment, f"{file}: {uses} does not say its version"
            pins.setdefault(action, set()).add(ref + comment)
    assert {action: refs for action, refs in pins.items() if len(refs) > 1} == {}


def test_workflows_hold_no_expression_in_a_shell_and_no_wide_permission() -> None:
    for file, text in workflows().items():
        document = yaml.safe_load(text)
        steps = [step for job in document.get("jobs", {}).values() for step in job.get("steps", [])]
        steps += document.get("runs", {}).get("steps", [])
        assert [step["run"] for step in steps if "${{" in step.get("run", "")] == [], file
        if "jobs" in document:
            assert document["permissions"] == {}, file
            for name, job in document["jobs"].items():
                assert "write-all" not in str(job.get("permissions")), f"{file}: {name}"
                assert "permissions" in job, f"{file}: {name}"


def test_what_starts_without_our_code_is_told_to_keep_to_itself_in_the_same_words() -> None:
    makefile = dict(re.findall(r"^export (\w+) := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for said in (makefile, stage_environment("base")):
        assert {name: said.get(name) for name in QUIET} == QUIET


def test_images_install_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    calls = re.findall(r"install\.sh /opt/venv/bin/python ([a-z ]+)", DOCKERFILE)
    asked = {extra for line in calls for extra in line.split()}
    assert asked
    assert asked <= set(extras)


def test_nothing_but_what_images_copy_reaches_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        copied |= set(line.split()[:-1])
    covered = {path for path in copied if any(path == entry or path.startswith(entry + "/") for entry in allowed)}
    assert copied == covered
