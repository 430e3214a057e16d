"""What the production profile costs, as `aidetect cost` estimates it, and the prices behind it with their sources."""

from typing import Final

from docs.generate.markdown import NOTE, code, table
from pipelines.config import load_config
from pipelines.cost import Estimate, Line, Price, estimate, load_prices

_NOWHERE: Final = "workspace/of-a-fresh-clone"
"""No recorded runs: their durations are one machine's own and would change this page."""
_GROUPS: Final = {
    "run": "One pipeline run",
    "serving": "A month of serving",
    "operations": "A month of MLflow, metrics and previews",
    "storage": "A month of storage",
}


def page() -> str:
    """`COSTS.md`."""
    found, spot = _estimate(), _estimate("machines.train.spot=true")
    parts = [
        NOTE.format(source="pipelines/cost.py and pipelines/prices.yaml"),
        "# Costs",
        f"An estimate by list prices of {found.region} in US dollars, read {found.prices_read}, before taxes, credits, "
        "free tiers and discounts. Nothing here is a bill. Durations are assumed until runs on Vertex AI are recorded; "
        "`aidetect cost` then takes their median, and a run says its estimate before it is submitted. The training's "
        "duration on a T4 is [arithmetic, not a measurement](TRAINING.md#how-long-on-a-t4-on-paper-unmeasured).",
        "```bash\naidetect cost\naidetect cost --json\n```",
    ]
    for group, title in _GROUPS.items():
        lines = [line for line in found.lines if line.group == group]
        parts += [f"## {title}: {found.total(group):.2f} $", _lines(lines)]
    parts += [
        "## Ways to pay less",
        "* `cost.min_instances` of 0 (Terraform's `min_instances`): nothing is paid between requests, the first one "
        "waits for a start.\n* A budget with alerts: Terraform's module `budget`, by `billing_account`.\n* Artifacts "
        "of runs expire by Terraform's `artifact_retention_days`.\n* "
        f"[`machines.train.spot`](TRAINING.md#spot-machines): training for {_train(spot):.2f} $ instead of "
        f"{_train(found):.2f} $ a run by the smallest discount that Google names, what is trained again after a "
        "preemption not counted.",
        "## Prices",
        "Where `checked` is no, only somebody else's quotation of the source was read: look there before planning a "
        "budget.",
        table(("price", "unit", "USD", "read", "checked", "source", "seen as"), _prices(found)),
    ]
    return "\n\n".join(parts) + "\n"


def _estimate(*settings: str) -> Estimate:
    return estimate(load_config("production", [f"paths.workspace={_NOWHERE}", *settings], environ={}))


def _train(found: Estimate) -> float:
    return sum(line.usd for line in found.lines if line.what.startswith("train "))


def _lines(lines: list[Line]) -> str:
    rows = [(line.what, f"{line.quantity:,.2f}", line.unit, f"{line.usd:.2f}", line.basis) for line in lines]
    return table(("what", "quantity", "unit", "USD", "quantity from"), rows)


def _prices(found: Estimate) -> list[tuple[str, ...]]:
    return [(code(name), *_price(price, found.region)) for name, price in load_prices().items.items()]


def _price(price: Price, region: str) -> tuple[str, ...]:
    checked = "yes" if price.checked else "no"
    return price.unit, f"{price.usd[region]:g}", str(price.read), checked, price.source, price.seen
