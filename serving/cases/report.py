"""A case as one HTML file to keep: picture, heatmap, evidence and what the numbers mean, for a statement of reasons.

The file asks nobody for anything: pictures are in it, its policy forbids scripts and addresses, all text is escaped.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from serving.cases.words import TITLES, Answer, evidence, meanings, next_step, printable, score_line, title

POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE: Final = """
:root{--ink:#1d2330;--soft:#5b6475;--line:#d8dce3;--card:#fff;--page:#f4f5f7;--real:#1f6f5c;--review:#8a5a00;--ai:#a3401a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#a3acbb;--line:#2f3644;--card:#171c26;--page:#0f131a;
--real:#59bfa8;--review:#e0b04a;--ai:#ef9467}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:28px 18px 56px}h1{font-size:30px;line-height:1.2;margin:4px 0}
h2{font-size:18px;margin:0 0 10px}p{margin:0 0 8px}.soft{color:var(--soft)}.likely_real{color:var(--real)}
.review{color:var(--review)}.likely_ai{color:var(--ai)}.score{font-size:20px}
.caveat{border-left:4px solid var(--review);
padding:8px 14px;background:var(--card);margin:14px 0}section{background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:18px;margin-top:16px}.pictures{display:grid;gap:14px;
grid-template-columns:repeat(auto-fit,minmax(240px,1fr))}figure{margin:0}img{width:100%;display:block;border-radius:6px}
figcaption{color:var(--soft);font-size:14px;margin-top:4px}dl{margin:0}dt{color:var(--soft);font-size:14px}
dd{margin:0 0 8px;overflow-wrap:anywhere}.write{border-bottom:1px solid var(--line);min-height:1.6em}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What a report is made of."""

    file: str
    answer: Answer
    """Of `/predict` or `/predict/explain`: a verdict with its record, `model_version` and `request_id`."""
    picture: bytes
    """PNG of the photo."""
    heatmap: bytes | None
    """PNG of the heatmap; None where none was drawn."""
    where: str
    """What the heatmap shows, in words; also why there is none."""
    label: str | None
    """What a person said the photo is; None where nobody has."""
    written_at: datetime


def report(case: Case) -> str:
    """The HTML file."""
    answer = case.answer
    decision = html.escape(str(answer["decision"]), quote=True)
    name = html.escape(printable(case.file))
    caveat = answer["record"]["caveat"]
    banner = f'<p class="caveat">{_text(caveat)}</p>' if caveat else ""
    lines = "".join(f"<dt>{_text(e.title)}</dt><dd>{_text(e.sentence)}</dd>" for e in evidence(answer))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>Case: {name}</title><style>{_STYLE}</style></head><body><main>"
        f'<p class="soft">Case report · {name}</p><h1 class="{decision}">{_text(title(answer))}</h1>'
        f'<p class="score">{_text(score_line(answer))}</p><p><b>Next:</b> {_text(next_step(answer))}</p>{banner}'
        f"{_pictures(case)}<section><h2>Evidence</h2><dl>{lines}</dl></section>"
        f"<section><h2>What the numbers mean</h2>{_paragraphs(meanings(answer))}</section>"
        f"<section><h2>By what it was decided</h2><dl>{_facts(case)}</dl></section>{_statement(case)}"
        "</main></body></html>\n"
    )


def _pictures(case: Case) -> str:
    figures = [_figure(case.picture, "The photo as it was judged", "The photo")]
    if case.heatmap is not None:
        figures.append(_figure(case.heatmap, f"Heatmap on the photo. {case.where}", "Where the score came from"))
    return f'<section><div class="pictures">{"".join(figures)}</div><p class="soft">{_text(case.where)}</p></section>'


def _figure(png: bytes, alt: str, caption: str) -> str:
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{_text(alt)}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _facts(case: Case) -> str:
    answer, record = case.answer, case.answer["record"]
    thresholds: dict[str, Any] = record["thresholds"]
    facts = {
        "File": printable(case.file),
        "SHA-256 of the file": answer["image_sha256"],
        "Decision": answer["decision"],
        "Reasons": ", ".join(str(reason["code"]) for reason in answer["reasons"]),
        "Of the pixels alone": f"{answer['prediction']}, probability {float(answer['probability']):.6f}, "
        f"confidence {answer['confidence']}",
        "Thresholds": f"clear below {thresholds['real_below']:.4f}, likely generated from {thresholds['ai_from']:.4f}",
        "Model": f"version {answer['model_version']}, digest {record['model_digest']}",
        "Request": answer.get("request_id") or "none: judged on the command line",
        "Label by a person": case.label or "none yet",
        "Report written": f"{case.written_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    return "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())


def _statement(case: Case) -> str:
    """The sentences of a statement of reasons that the machine can fill in, and room for those it cannot."""
    return (
        "<section><h2>For a statement of reasons</h2>"
        "<p>An automated detector of AI-generated pictures was used to find and to weigh this photo. It came to: "
        f"{_text(TITLES.get(str(case.answer['decision']), ''))}. "
        "Its reasons stand above under Evidence, its error rates under What the "
        "numbers mean.</p><p>Decided by (a person), and on which ground of law or terms:</p>"
        '<p class="write">&nbsp;</p><p>How to object:</p><p class="write">&nbsp;</p></section>'
    )


def _paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{_text(sentence)}</p>" for sentence in sentences)


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
