"""Rules, dashboards, runbooks and documents speak of metrics that the server really exports, and of all of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from infra.grafana import generate
from serving.app import create_app
from serving.settings import Settings
from tests.bundles import jpeg
from tests.statements import FILES

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "infra" / "prometheus"
DASHBOARDS = ROOT / "infra" / "grafana" / "dashboards"
CLOUD = ROOT / "infra" / "terraform" / "modules" / "monitoring" / "dashboards"
RUNBOOKS = ROOT / "docs" / "runbooks"
BUILT_IN = {"up", "ALERTS"}
SUFFIX = re.compile(r"_(bucket|sum|count|created)$")

SPEC_METRICS = {
    "aidetect_predictions_total",
    "aidetect_prediction_latency_seconds",
    "aidetect_prediction_probability",
    "aidetect_batch_predictions_total",
    "aidetect_batch_size",
    "aidetect_model_loaded",
    "aidetect_model_info",
    "aidetect_drift_score",
    "aidetect_drift_alert",
    "aidetect_queue_depth",
    "aidetect_rejected_total",
    "aidetect_shadow_agreement_total",
    "http_requests_total",
    "http_request_duration_seconds",
}


def rules() -> list[dict[str, Any]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            yield f"{file.name}: {panel['title']}", panel


def names_in(expression: str) -> set[str]:
    """Every metric an expression reads, by Prometheus' grammar."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)
        for attribute in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
            child = getattr(node, attribute, None)
            for one in child if isinstance(child, list) else [child]:
                if one is not None:
                    walk(one)

    walk(promql_parser.parse(expression.replace("$__rate_interval", "1m")))
    assert found or "vector(" in expression, f"no metric found in {expression}"
    return {SUFFIX.sub("", name) if name.startswith(("aidetect_", "http_")) else name for name in found}


@pytest.fixture(scope="module")
def exported(toy_bundle: Path) -> dict[str, dict[str, set[str]]]:
    """Family name -> label name -> values, from a live server that has seen some of everything."""
    settings = Settings(model_uri=str(toy_bundle), rate_limit_enabled=False)
    with TestClient(create_app(settings)) as client:
        client.post("/predict", files={"file": jpeg(200)})
        client.post("/predict", files={"file": b"nothing"})
        client.post("/predict", files={"file": FILES["iptc-JPEG"][0]})
        client.post("/predict/batch", files=[("files", ("a", jpeg(20), "image/jpeg"))])
        client.get("/drift")
        text = client.get("/metrics").text
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = found.setdefault(name, {})
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def test_rules_and_panels_read_only_what_is_exported_or_recorded(exported: dict[str, Any]) -> None:
    known = set(exported) | BUILT_IN | {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        name = rule.get("record") or rule["alert"]
        assert names_in(rule["expr"]) <= known, name
    for title, panel in panels():
        for target in panel["targets"]:
            assert names_in(target["expr"]) <= known, title


def test_every_label_that_rules_and_panels_name_is_exported(exported: dict[str, dict[str, set[str]]]) -> None:
    target_labels = {"job", "instance", "le"}
    labels = {label for labels in exported.values() for label in labels} | target_labels
    # those of counters that a healthy short life leaves empty
    labels |= {"agree", "label"}
    expressions = [rule["expr"] for rule in rules()]
    expressions += [target["expr"] + target["legendFormat"] for _, panel in panels() for target in panel["targets"]]
    for expression in expressions:
        matched = set(re.findall(r'[{,]\s*(\w+)\s*(?:=~|!=|!~|=)\s*"', expression))
        grouped = {name for by in re.findall(r"by \(([^)]*)\)", expression) for name in re.split(r",\s*", by)}
        shown = set(re.findall(r"\{\{(\w+)\}\}", expression))
        assert matched | grouped | shown <= labels, expression


def test_the_clouds_dashboards_read_only_what_is_exported(exported: dict[str, dict[str, set[str]]]) -> None:
    sets = [
        one
        for path in CLOUD.glob("*.json")
        for tile in json.loads(path.read_text())["mosaicLayout"]["tiles"]
        for one in tile["widget"]["xyChart"]["dataSets"]
    ]
    assert sets
    labels = {label for of_metric in exported.values() for label in of_metric} | {"agree", "label", "instance", "job"}
    for one in sets:
        query = one["timeSeriesQuery"]["prometheusQuery"]
        # no target is called up there
        assert names_in(query) <= set(exported), query
        assert set(re.findall(r"metric\.labels\.(\w+)", one["legendTemplate"])) <= labels, one


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("aidetect_decisions_total", {"decision": {"review", "likely_ai"}, "domain": {"inside"}}),
        ("aidetect_declared_total", {"declared": {"ai_generated"}, "decision": {"likely_ai"}}),
        ("aidetect_declared_recall", {"bound": {"value", "low", "high"}}),
    ],
)
def test_decisions_domain_and_provenance_are_shown_by_the_labels_they_are_counted_by(
    exported: dict[str, dict[str, set[str]]], metric: str, labels: dict[str, set[str]]
) -> None:
    for label, values in labels.items():
        assert values & exported[metric][label], f"the provoked server counts {metric} by {label}"
    shown = [target["expr"] for _, panel in panels() for target in panel["targets"] if metric in target["expr"]]
    assert any(set(labels) <= set(re.findall(r"\w+", expression)) for expression in shown)


def test_the_contracts_metrics_are_exported(exported: dict[str, Any]) -> None:
    assert set(exported) >= SPEC_METRICS


def test_every_exported_metric_is_documented_and_no_other(exported: dict[str, dict[str, set[str]]]) -> None:
    table = (ROOT / "docs" / "MONITORING.md").read_text().partition("## Metrics")[2].partition("## ")[0]
    rows = re.findall(r"`([a-z_]+)(?:\{([a-z_,]+)\})?`(?=[ ,|])", table.replace("`PIPELINE", "PIPELINE"))
    documented = {
        name: set(labels.split(",")) - {""}
        for name, labels in rows
        if name.startswith(("aidetect", "http_", "process_"))
    }
    assert set(documented) == set(exported)
    for name, labels in exported.items():
        assert not labels or set(labels) - {"le"} == documented[name], name


def test_the_committed_dashboards_are_what_the_code_generates() -> None:
    committed = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert committed == generate.generate(), "run `python -m infra.grafana.generate`"
    assert len(committed) == 4
    for name, text in committed.items():
        model = json.loads(text)
        ids = [panel["id"] for panel in model["panels"]]
        assert len(set(ids)) == len(ids), name
        cells = [
            (p["gridPos"]["x"] + dx, p["gridPos"]["y"]) for p in model["panels"] for dx in range(p["gridPos"]["w"])
        ]
        assert len(set(cells)) == len(cells), f"{name}: panels overlap"


def test_cloud_monitoring_has_the_same_panels_in_its_own_words() -> None:
    committed = {path.name: path.read_text() for path in generate.CLOUD.glob("*.json")}
    assert committed == generate.generate_cloud(), "run `python -m infra.grafana.generate`"
    recorded = set(generate.spelled_out())
    for name, text in committed.items():
        dashboard, grafana = json.loads(text), json.loads((DASHBOARDS / name).read_text())
        tiles = dashboard["mosaicLayout"]["tiles"]
        assert len(tiles) == len([p for p in grafana["panels"] if p["type"] != "row"]), name
        cells = [
            (tile.get("xPos", 0) + dx, tile.get("yPos", 0) + dy)
            for tile in tiles
            for dx in range(tile["width"])
            for dy in range(tile["height"])
        ]
        assert len(set(cells)) == len(cells), f"{name}: tiles overlap"
        assert max(x for x, _ in cells) < dashboard["mosaicLayout"]["columns"]
        queries = re.findall(r'"prometheusQuery": ("(?:[^"\\]|\\.)*")', text)
        assert queries
        for query in map(json.loads, queries):
            promql_parser.parse(query.replace("${__interval}", "5m"))
            assert not [rule for rule in recorded if rule in query], f"{name}: {query} names a recording rule"


def test_grafana_finds_its_source_and_its_dashboards() -> None:
    provisioning = ROOT / "infra" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {t["datasource"]["uid"] for _, p in panels() for t in p["targets"]} == {source["uid"]}
    compose = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "aidetect.yml").read_text())["providers"]
    assert any(str(v).split(":")[1] == provider["options"]["path"] for v in compose["grafana"]["volumes"])


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["labels"]["severity"] for rule in alerts} == {"page", "ticket"}
    chart = (ROOT / "docs" / "RUNBOOKS.md").read_text()
    for rule in alerts:
        page = ROOT / rule["annotations"]["runbook_url"]
        text = page.read_text()
        (row,) = [line for line in chart.splitlines() if re.search(rf"\b{rule['alert']}\b", line)]
        assert f"(runbooks/{page.name})" in row and rule["labels"]["severity"] in row
        assert rule["alert"] in text.splitlines()[0], page
        assert {"## Look", "## Do"} <= set(text.splitlines()), page
    named = {(ROOT / rule["annotations"]["runbook_url"]).name for rule in alerts}
    assert named == {path.name for path in RUNBOOKS.glob("*.md")}
    # as it stands there it can be typed: these two ask a service
    asking = re.findall(
        r"`(aidetect (?:retrain|drift)[^`]*)`", chart + "".join(p.read_text() for p in RUNBOOKS.glob("*.md"))
    )
    assert len(asking) > 5 and [command for command in asking if "--url URL" not in command] == []


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    seen: dict[str, set[bool]] = {}
    for file in (PROMETHEUS / "tests").glob("*.yml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case["promql_expr_test"]:
                alert = re.search(r'alertname="(\w+)"', check["expr"])
                assert alert
                seen.setdefault(alert[1], set()).add(bool(check["exp_samples"]))
    assert seen == {rule["alert"]: {True, False} for rule in rules() if "alert" in rule}


def test_alerts_that_ask_for_retraining_reach_the_receiver() -> None:
    config = yaml.safe_load((ROOT / "infra" / "alertmanager" / "alertmanager.yml").read_text())
    names = {receiver["name"] for receiver in config["receivers"]}
    routes = config["route"]["routes"]
    assert {config["route"]["receiver"], *(route["receiver"] for route in routes)} == names
    asking = {rule["alert"] for rule in rules() if rule.get("labels", {}).get("action") == "retrain"}
    assert asking == {"DriftAlarm", "ChampionStale", "DeclaredRecallLow"}
    assert any(route["matchers"] == ['action="retrain"'] and route["continue"] for route in routes)
