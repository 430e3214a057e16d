"""The training curves as one self-contained HTML page."""

import html
import io
from collections.abc import Sequence

from components.train.loop import EpochRecord

_COLUMNS = (
    ("epoch", "epoch", "{:.0f}"),
    ("side_px", "input px", "{:.0f}"),
    ("train_loss", "train loss", "{:.4f}"),
    ("val_log_loss", "val log-loss", "{:.4f}"),
    ("val_accuracy", "val accuracy", "{:.4f}"),
    ("val_roc_auc", "val ROC-AUC", "{:.4f}"),
    ("learning_rate", "learning rate", "{:.2e}"),
    ("images_per_s", "images/s", "{:.0f}"),
)


def curves_html(history: Sequence[EpochRecord], best_epoch: int, facts: Sequence[tuple[str, str]]) -> str:
    """A page with the plots of losses, validation quality and learning rate, and every number in a table.

    Args:
        history: the epochs, in order.
        best_epoch: the one whose weights were kept.
        facts: (name, value) lines shown first.
    """
    head = "".join(f"<th>{title}</th>" for _, title, _ in _COLUMNS)
    rows = "".join(
        f"<tr{' class=best' if record['epoch'] == best_epoch else ''}>"
        + "".join(f"<td>{form.format(record[key])}</td>" for key, _, form in _COLUMNS)
        + "</tr>"
        for record in history
    )
    lines = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Training curves</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2530 }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem }} dt {{ color: #5b6875 }}
dd {{ margin: 0 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: right; padding: .3rem .6rem }}
tr {{ border-bottom: 1px solid #e3e8ee }} .best {{ background: #e8f3ec; font-weight: 600 }}
svg {{ width: 100%; height: auto }}
</style></head><body><h1>Training curves</h1><dl>{lines}</dl>{_plot(history, best_epoch)}
<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></body></html>
"""


def _plot(history: Sequence[EpochRecord], best_epoch: int) -> str:
    from matplotlib.figure import Figure

    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, quality, rate = figure.subplots(1, 3)
    losses.plot(epochs, [r["train_loss"] for r in history], "o-", label="train (smoothed, augmented)")
    losses.plot(epochs, [r["val_log_loss"] for r in history], "o-", label="validation log-loss")
    losses.set_title("loss")
    quality.plot(epochs, [r["val_accuracy"] for r in history], "o-", label="accuracy")
    quality.plot(epochs, [r["val_roc_auc"] for r in history], "o-", label="ROC-AUC")
    quality.set_title("validation")
    rate.plot(epochs, [r["learning_rate"] for r in history], "o-", color="tab:grey", label="learning rate")
    rate.set_title("learning rate at the epoch's end")
    for axes in (losses, quality, rate):
        axes.axvline(best_epoch, color="tab:green", linewidth=1, linestyle=":")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :]
