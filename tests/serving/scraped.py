"""What a scrape of /metrics says, and an upload that it counts."""

from prometheus_client.parser import text_string_to_metric_families

from tests.bundles import jpeg

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def upload(level: int = 200) -> dict[str, tuple[str, bytes, str]]:
    return {"file": ("x.jpg", jpeg(level), "image/jpeg")}
