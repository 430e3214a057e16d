"""How runs, verdicts and models are shown on a terminal."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.artifacts.verdict import VERDICT_JSON, GateVerdict, read_verdict
from pipelines.runs import RunRecord

if TYPE_CHECKING:
    from components.platform.registry import VersionSummary
    from pipelines.cost import Estimate
    from pipelines.settings.pipeline import PipelineConfig
    from pipelines.showcase import Showcase

_COLOURS = {
    "deployed": "green",
    "registered": "green",
    "refused": "yellow",
    "failed": "red",
    "interrupted": "red",
    "lost": "red",
}
_OF_A_PIPE = 1000
_NARROWEST = 80
_MARKS = {"passed": "[green]✓[/]", "refused": "[red]✗[/]", "reported": "[dim]·[/]"}


def console() -> Console:
    """Standard output; colours only on a terminal.

    In a pipe a row is a line, which `grep` finds whole; on a narrow terminal the terminal breaks it, not the columns.
    """
    out = Console(highlight=False, soft_wrap=True)
    out.width = max(out.width, _NARROWEST if out.is_terminal else _OF_A_PIPE)
    return out


def print_run(record: RunRecord, config: "PipelineConfig") -> None:
    """The summary of a finished run: verdict, stages, figures, where things lie, what to do next."""
    out = console()
    if record.ran("quality_gate") and (record.output("quality_gate", "verdict") / VERDICT_JSON).is_file():
        print_verdict(read_verdict(record.output("quality_gate", "verdict")))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "status"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    for stage in record.stages:
        table.add_row(stage.name, stage.shown, f"{stage.seconds:.1f}" if stage.seconds else "")
    out.print(table)
    own = sum(stage.seconds for stage in record.stages)
    out.print(f"total {record.seconds:.1f} s, of which the stages {own:.1f} s")
    out.print()
    colour = _COLOURS.get(record.status, "white")
    out.print(Text.assemble((f"run {record.run_id}: {record.status}", f"bold {colour}")))
    if record.error:
        out.print(Text(f"  {record.error}", style="red"))
    _print_places(out, record, config)


def _print_places(out: Console, record: RunRecord, config: "PipelineConfig") -> None:
    folder = Path(record.folder)
    places = [("run folder", folder), ("log", folder / "run.log")]
    named = {"data.html": "data report", "curves.html": "training curves", "evaluation.html": "evaluation report"}
    places += [(label, folder / name) for name, label in named.items() if (folder / name).is_file()]
    if record.ran("train") and record.stage("train").output_dir:
        places.append(("model bundle", record.output("train", "bundle")))
    if record.ran("evaluate") and record.stage("evaluate").output_dir:
        places.append(("evaluation", record.output("evaluate", "evaluation")))
    for label, path in places:
        out.print(f"  {label:<18} {_shorten(path)}")
    if record.ran("register"):
        out.print(f"  {'registry':<18} {config.tracking_uri}")
    out.print(f"  {'next':<18} {_next_step(record, config)}")


def print_showcase(shown: "Showcase") -> None:
    """One prediction with its picture."""
    out = console()
    verdict = shown.verdict
    out.print()
    out.print(
        f"one prediction: {_shorten(shown.photo)} is {shown.truth}; the detector says [bold]{verdict.prediction}[/], "
        f"P(ai_generated) = {verdict.probability:.3f}, confidence {verdict.confidence}"
    )
    out.print(f"  what spoke for {shown.explained_class}: {_shorten(shown.picture)}")


def _next_step(record: RunRecord, config: "PipelineConfig") -> str:
    """What to do now, in words that work for this run's profile and workspace."""
    here = ""
    if config.paths.workspace != Path("workspace"):
        here = f" --set paths.workspace={shlex.quote(str(_shorten(config.paths.workspace)))}"
    where = ("" if record.profile == "sample" else f" --profile {record.profile}") + here
    # a run's own profile is what it goes on with
    again = f"aidetect run --resume {record.run_id}{here}"
    if record.is_open:
        return f"aidetect runs follow {record.run_id}{where}"
    if record.status == "deployed":
        if not config.deploy.starts_server:
            return f"aidetect models{where}"
        return f"aidetect serve{where}, then: curl -F file=@PHOTO http://127.0.0.1:8080/predict"
    if record.status == "registered":
        return f"aidetect deploy{where}"
    if record.status == "refused":
        other = "" if record.resource else f"; another policy, without another training: {again} --set gate.KEY=VALUE"
        return f"read the evaluation report; the champion in service was not touched{other}"
    log = _shorten(Path(record.folder) / "run.log")
    if record.ran("verify_data") and not record.resource:
        mend = "" if record.status == "interrupted" else f"mend what it says ({log}), then: "
        return f"{mend}{again}"
    return f"read {record.link or log}"


def _shorten(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def print_verdict(verdict: GateVerdict) -> None:
    """The gate's headline and one line per check."""
    out = console()
    out.print(Text(verdict.headline, style="bold green" if verdict.passed else "bold yellow"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    for check in verdict.checks:
        table.add_row(_MARKS[check.outcome], Text(check.sentence))
    out.print(table)
    for note in verdict.notes:
        out.print(Text(f"note: {note}", style="dim"))
    out.print()


def print_runs(records: list[RunRecord]) -> None:
    """One row a run."""
    out = console()
    if not records:
        out.print("no runs yet; start one with: aidetect run")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    _add_columns(table, "run", "target", "profile", "status", "accuracy", "F1", "seconds", "reason")
    table.columns[0].min_width = max(len(record.run_id) for record in records)
    table.columns[3].min_width = max(len(record.status) for record in records)
    for record in records:
        figures = [f"{record.metrics[name]:.4f}" if name in record.metrics else "" for name in ("accuracy", "f1")]
        status = Text(record.status, style=_COLOURS.get(record.status, ""))
        table.add_row(
            record.run_id, record.target, record.profile, status, *figures, f"{record.seconds:.0f}", record.reason
        )
    out.print(table)


def print_models(versions: "list[VersionSummary]", tracking_uri: str) -> None:
    """One row a registered version."""
    out = console()
    if not versions:
        out.print(f"no versions in {tracking_uri}; train one with: aidetect run")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    _add_columns(table, "version", "aliases", "accuracy", "F1", "created (UTC)", "run", "verdict")
    table.columns[5].min_width = max(len(version.run_id) for version in versions)
    for version in versions:
        figures = [f"{version.metrics[name]:.4f}" if name in version.metrics else "" for name in ("accuracy", "f1")]
        said = (("rolled back", version.rolled_back), ("half registered", version.unfinished))
        names = [*version.aliases, *(word for word, holds in said if holds)]
        aliases = Text(", ".join(names), style="green" if "champion" in version.aliases else "")
        table.add_row(
            version.version,
            aliases,
            *figures,
            version.created_at[:16].replace("T", " "),
            version.run_id,
            version.headline,
        )
    out.print(table)


def _add_columns(table: Table, *names: str) -> None:
    """Columns that fold what does not fit: an id or a name that is cut is of no use."""
    for name in names:
        table.add_column(name, overflow="fold")


def print_estimate(estimate: "Estimate") -> None:
    """One row a position, the totals, and what the prices are worth."""
    out = console()
    titles = {
        "run": "one pipeline run",
        "serving": "serving, a month",
        "operations": "operations, a month",
        "storage": "storage, a month",
    }
    for group, title in titles.items():
        lines = [line for line in estimate.lines if line.group == group]
        if not lines:
            continue
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(title)
        table.add_column("quantity", justify="right")
        table.add_column("unit")
        table.add_column("USD", justify="right")
        table.add_column("basis", style="dim")
        for line in lines:
            table.add_row(line.what, f"{line.quantity:,.2f}", line.unit, f"{line.usd:,.4f}", line.basis)
        table.add_row(Text("total", style="bold"), "", "", Text(f"{estimate.total(group):,.2f}", style="bold"), "")
        out.print(table)
        out.print()
    out.print(
        f"List prices of {estimate.region} in US dollars, read {estimate.prices_read}, before taxes and discounts; "
        f"sources in pipelines/prices.yaml. Quoted second hand, to be checked: {', '.join(estimate.unchecked)}."
    )
