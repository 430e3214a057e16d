"""Reference of the metrics that the server exports, from the registry itself."""

from prometheus_client.metrics import MetricWrapperBase

from docs.generate.markdown import NOTE, code, table
from serving.app import create_app
from serving.settings import Settings


def page() -> str:
    """`reference/metrics.md`."""
    registry = create_app(Settings(model_uri="")).state.service.telemetry.registry
    collectors = list(dict.fromkeys(registry._collector_to_names))
    rows = [_row(collector) for collector in collectors if isinstance(collector, MetricWrapperBase)]
    return (
        f"{NOTE.format(source='serving/telemetry')}\n\n# Metrics\n\n"
        "What `/metrics` exports. Beside these, Prometheus' own `process_*` metrics when there is one worker process. "
        "What they are for: [Monitoring](../MONITORING.md).\n\n"
        + table(("metric", "type", "labels", "says"), sorted(rows))
        + "\n"
    )


def _row(collector: MetricWrapperBase) -> tuple[str, ...]:
    labels = ", ".join(code(name) for name in collector._labelnames)
    suffix = "_total" if collector._type == "counter" else ""
    return code(collector._name + suffix), str(collector._type), labels, collector._documentation
