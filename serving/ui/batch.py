"""Several photos on the page: the most suspicious first, refusals as a list of their own."""

import html
from collections.abc import Sequence
from typing import Final

import streamlit as st

from serving.cases.words import SHAPES, SUSPICION, TITLES, printable, score_line, suspicion, title
from serving.ui import case, export, heatmap
from serving.ui.client import ApiError, Photo, Refusal, Verdict
from serving.ui.memory import Memory, content_hash
from serving.ui.messages import show_error
from serving.ui.words import COLOURS, plain

Uploaded = list[tuple[str, Photo]]
"""(sha256, photo) in the order the user gave them."""

FIRST_SHOWN: Final = 50
"""Lines of the list that are not folded away."""


def show(memory: Memory, uploaded: Uploaded) -> ApiError | None:
    """Judge and draw the photos; the answer is what the rest has to wait for, or None."""
    failure = None
    try:
        with st.spinner(f"Judging {len(uploaded)} photos …"):
            memory.judge(dict(uploaded))
    except ApiError as error:
        failure = error
    judged = _ordered(memory, uploaded)
    refused = [(p.name, o) for sha256, p in uploaded if isinstance(o := memory.outcome(sha256), Refusal)]
    st.markdown(_summary([verdict for _, verdict in judged], len(refused), len(uploaded)))
    waits = failure if failure is not None and failure.retry_after_s is not None else None
    if failure is not None and waits is None:
        show_error(failure)
    if judged:
        _list(memory, uploaded, judged)
    if refused:
        st.subheader(f"Without a verdict: {len(refused)}", anchor=False)
        for name, refusal in refused:
            st.markdown(f"- **{plain(printable(name))}**: {plain(refusal.detail)}")
    if judged or refused:
        _downloads(memory, uploaded)
    if judged:
        late = _chosen(memory, uploaded, [index for index, _ in judged])
        waits = waits or late
    return waits


def _ordered(memory: Memory, uploaded: Uploaded) -> list[tuple[int, Verdict]]:
    found = [(i, o) for i, (sha256, _) in enumerate(uploaded) if isinstance(o := memory.outcome(sha256), Verdict)]
    return sorted(found, key=lambda one: suspicion(one[1].answer), reverse=True)


def _summary(verdicts: Sequence[Verdict], refused: int, of: int) -> str:
    decisions = [verdict.decision for verdict in verdicts]
    parts = [f"{SHAPES[name]} **{decisions.count(name)}** {TITLES[name].lower()}" for name in reversed(SUSPICION)]
    parts += [f"■ **{refused}** without a verdict"] if refused else []
    left = of - len(verdicts) - refused
    parts += [f"□ **{left}** not judged yet"] if left else []
    return f"**{of} photos**: " + " · ".join(parts).replace("ai-generated", "AI-generated")


def _list(memory: Memory, uploaded: Uploaded, judged: Sequence[tuple[int, Verdict]]) -> None:
    lines = [
        _line(number, memory.thumbnail(*uploaded[index]), uploaded[index][1].name, verdict)
        for number, (index, verdict) in enumerate(judged, start=1)
    ]
    st.html(_as_list(lines[:FIRST_SHOWN], 1))
    if more := lines[FIRST_SHOWN:]:
        with st.expander(f"{len(more)} more, less suspicious"):
            st.html(_as_list(more, FIRST_SHOWN + 1))


def _as_list(lines: Sequence[str], first: int) -> str:
    style = "list-style:none;margin:0;padding:0"
    return f'<ol start="{first}" aria-label="Photos, the most suspicious first" style="{style}">{"".join(lines)}</ol>'


def _line(number: int, thumbnail: str, name: str, verdict: Verdict) -> str:
    """One photo; flexible, so that nothing is cut on a phone."""
    answer = verdict.answer
    colour = COLOURS.get(verdict.decision, COLOURS["review"])
    reason = html.escape(str(answer["reasons"][0]["sentence"])) if answer["reasons"] else ""
    return (
        '<li style="display:flex;gap:.8rem;align-items:flex-start;padding:.5rem 0;'
        f'border-bottom:1px solid rgba(128,128,128,.3)"><img src="{thumbnail}" alt="" '
        'style="width:72px;height:72px;flex:none;object-fit:contain;background:rgba(128,128,128,.15);border-radius:6px">'
        f'<div style="min-width:0;border-left:.3rem solid {colour};padding-left:.6rem">'
        f"<div><b>{html.escape(title(answer))}</b> · {html.escape(score_line(answer))}</div>"
        f'<div style="overflow-wrap:anywhere">{number}. {html.escape(printable(name))}</div>'
        f'<div style="opacity:.75;font-size:.9rem">{reason}</div></div></li>'
    )


def _chosen(memory: Memory, uploaded: Uploaded, order: Sequence[int]) -> ApiError | None:
    st.subheader("One by one", anchor=False)
    key = "chosen-" + content_hash("".join(sha256 for sha256, _ in uploaded).encode())
    number = {index: place for place, index in enumerate(order, start=1)}
    index = st.selectbox(
        "Look at",
        order,
        format_func=lambda i: f"{number.get(i, 0)}. {printable(uploaded[i][1].name)}",
        key=key,
    )
    at = order.index(index) if index in order else len(order)

    def onwards() -> None:
        st.session_state[key] = order[at + 1]

    if at + 1 < len(order):
        st.button("Next photo", icon=":material/arrow_forward:", on_click=onwards)
    return case.show(memory, *uploaded[index])


def _downloads(memory: Memory, uploaded: Uploaded) -> None:
    rows = [export.row(photo.name, sha256, memory.outcome(sha256)) for sha256, photo in uploaded]
    with st.container(horizontal=True):
        st.download_button("Download CSV", export.as_csv(rows), "verdicts.csv", "text/csv", on_click="ignore")
        st.download_button(
            "Download ZIP",
            lambda: export.as_zip(rows, _heatmaps(memory, uploaded)),
            "verdicts.zip",
            "application/zip",
            on_click="ignore",
            help="The table as CSV and JSON, and the heatmaps looked at so far.",
        )


def _heatmaps(memory: Memory, uploaded: Uploaded) -> list[tuple[str, str, bytes]]:
    return [
        (photo.name, sha256, heatmap.png(heatmap.laid_over(heatmap.shown(photo.data), found.grid)))
        for sha256, photo in uploaded
        if (found := memory.explanation(sha256)) is not None
    ]
