"""The dashboards, as code: `python -m infra.grafana.generate` writes them for Grafana and Cloud Monitoring.

Schemas: Grafana dashboard JSON model, schemaVersion 39; Cloud Monitoring API, projects.dashboards v1.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from infra.grafana.panels import DASHBOARDS, Panel

HERE: Final = Path(__file__).resolve().parent / "dashboards"
CLOUD: Final = HERE.parents[1] / "terraform/modules/monitoring/dashboards"
RECORDING: Final = HERE.parents[1] / "prometheus/rules/recording.yml"
REPLICAS: Final = ('sum(up{job="aidetect"})', "count(aidetect_model_loaded)")
"""Instances, as Prometheus counts its targets, and without a job of that name."""
SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
COLUMNS: Final = 24


def dashboard(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """One dashboard's JSON model; panels are laid out left to right, top to bottom."""
    placed, x, y = [], 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + 8
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": 8}))
        x += panel.width
    return {
        "uid": f"aidetect-{uid}",
        "title": title,
        "tags": ["aidetect"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["aidetect"], "title": "aidetect", "asDropdown": True}],
        "panels": placed,
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"value": None, "color": "green"}]
    steps += [{"value": value, "color": colour} for value, colour in panel.thresholds]
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {
            "fillOpacity": 20 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        custom["thresholdsStyle"] = {"mode": "line" if panel.thresholds else "off"}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "timeseries":
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }


def generate() -> dict[str, str]:
    """File name -> JSON text of every dashboard."""
    return {
        f"{uid}.json": json.dumps(dashboard(uid, title, panels), indent=1) + "\n"
        for uid, (title, panels) in DASHBOARDS.items()
    }


def spelled_out() -> dict[str, str]:
    """Recording rule -> its expression in brackets, for Cloud Monitoring, where no rules are recorded."""
    groups = yaml.safe_load(RECORDING.read_text())["groups"]
    rules = {rule["record"]: f"({' '.join(rule['expr'].split())})" for group in groups for rule in group["rules"]}
    for _ in rules:  # a rule may stand on another
        rules = {name: _expanded(text, {k: v for k, v in rules.items() if k != name}) for name, text in rules.items()}
    return rules


def _expanded(text: str, rules: dict[str, str]) -> str:
    return re.sub(r"aidetect:[a-z0-9_:]+", lambda found: rules.get(found[0], found[0]), text)


def cloud_dashboard(title: str, panels: Sequence[Panel], rules: dict[str, str]) -> dict[str, Any]:
    """The same panels as a dashboard of Cloud Monitoring, two in a row."""
    tiles = []
    for number, panel in enumerate(panels):
        sets = [
            {
                "timeSeriesQuery": {
                    "prometheusQuery": _expanded(expr.replace(*REPLICAS), rules).replace("$__rate_interval", "5m")
                },
                "plotType": "STACKED_AREA" if panel.stacked else "LINE",
                "legendTemplate": re.sub(r"\{\{(\w+)\}\}", r"${metric.labels.\1}", legend),
            }
            for expr, legend in panel.queries
        ]
        tile = {"title": panel.title, "xyChart": {"dataSets": sets}}
        place = {"xPos": 24 * (number % 2), "yPos": 16 * (number // 2), "width": 24, "height": 16}
        tiles.append({**{key: value for key, value in place.items() if value}, "widget": tile})
    return {"displayName": f"aidetect: {title}", "mosaicLayout": {"columns": 48, "tiles": tiles}}


def generate_cloud() -> dict[str, str]:
    """File name -> JSON text of every dashboard, for Cloud Monitoring."""
    rules = spelled_out()
    return {
        f"{uid}.json": json.dumps(cloud_dashboard(title, panels, rules), indent=1) + "\n"
        for uid, (title, panels) in DASHBOARDS.items()
    }


def main() -> int:
    """Write the files."""
    for folder, texts in ((HERE, generate()), (CLOUD, generate_cloud())):
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
        sys.stdout.write(f"{len(DASHBOARDS)} dashboards in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
