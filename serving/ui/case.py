"""One photo on the page: what it comes to, what to do next, what speaks for it, and what a person says of it."""

import html
from datetime import UTC, datetime
from functools import partial
from typing import Final

import streamlit as st

from serving.cases.report import Case, report
from serving.cases.words import LABELS, evidence, heat_in_words, next_step, printable, score_line, title
from serving.ui import heatmap
from serving.ui.client import ApiError, Explanation, Photo, Refusal, Verdict
from serving.ui.memory import Memory
from serving.ui.messages import show_error
from serving.ui.words import COLOURS, plain

SAID: Final = {"real": "It is real", "ai_generated": "It is AI-generated"}
"""What a person may say a photo is, on the buttons."""


def show(memory: Memory, sha256: str, photo: Photo) -> ApiError | None:
    """Judge and draw one photo; the answer is what its verdict has to wait for, or None."""
    name = printable(photo.name)
    try:
        with st.spinner(f"Judging {plain(name)} …"):
            no_heat = memory.look_at(photo, sha256)
    except ApiError as error:
        if error.retry_after_s is not None:
            return error
        show_error(error)
        return None
    outcome = memory.outcome(sha256)
    if isinstance(outcome, Refusal):
        st.error(f"**{plain(name)} has no verdict.** {plain(outcome.detail)}", icon=":material/error:")
    elif outcome is not None:
        _headline(outcome, name)
        left, right = st.columns(2)
        left.image(heatmap.shown(photo.data), alt=f"The photo {name} as it was judged", width="stretch")
        with right:
            _evidence(outcome)
        _actions(memory, sha256, photo, outcome)
        _heat(memory.explanation(sha256), photo, no_heat)
        _trace(outcome)
    return None


def _headline(verdict: Verdict, name: str) -> None:
    """In plain HTML: a box of the decision's colour, its text in the page's own."""
    said, line, step = (html.escape(words(verdict.answer)) for words in (title, score_line, next_step))
    colour = COLOURS.get(verdict.decision, COLOURS["review"])
    st.html(
        f'<section aria-label="Decision" style="border-left:.5rem solid {colour};padding:.2rem 0 .2rem 1rem">'
        f'<div style="overflow-wrap:anywhere;opacity:.75">{html.escape(name)}</div>'
        f'<div style="font-size:1.9rem;font-weight:700;line-height:1.25">{said}</div>'
        f'<div style="font-size:1.2rem">{line}</div>'
        f'<div style="margin-top:.4rem"><b>Next:</b> {step}</div></section>'
    )


def _evidence(verdict: Verdict) -> None:
    for line in evidence(verdict.answer):
        st.markdown(f"**{plain(line.title)}:** {plain(line.sentence)}")


def _actions(memory: Memory, sha256: str, photo: Photo, verdict: Verdict) -> None:
    takes = memory.about.takes_feedback
    closed = None if takes else "This API keeps no labels; its operator can set FEEDBACK_DIR."
    with st.container(horizontal=True):
        for label, words in SAID.items():
            if st.button(words, key=f"{label}-{sha256}", disabled=not takes, help=closed):
                try:
                    memory.label(sha256, label)
                except ApiError as error:
                    show_error(error)
        st.download_button(
            "Save case report",
            partial(_report, memory, sha256, photo, verdict),
            f"case-{sha256[:12]}.html",
            "text/html",
            on_click="ignore",
            icon=":material/description:",
            help="One file with picture, heatmap, evidence and what the numbers mean.",
        )
    if said := memory.labels.get(sha256):
        st.success(f"Kept: you said “{LABELS[said]}”. A new click corrects it.", icon=":material/check:")


def _report(memory: Memory, sha256: str, photo: Photo, verdict: Verdict) -> bytes:
    found, picture = memory.explanation(sha256), heatmap.shown(photo.data)
    label = memory.labels.get(sha256)
    drawn, where = None, "No heatmap was drawn for this photo."
    if found is not None:
        drawn = heatmap.png(heatmap.laid_over(picture, found.grid))
        where = heat_in_words(found.grid, found.explained_class)
    said = LABELS[label] if label else None
    written = Case(photo.name, verdict.answer, heatmap.png(picture), drawn, where, said, datetime.now(UTC))
    return report(written).encode()


def _heat(explanation: Explanation | None, photo: Photo, late: ApiError | None) -> None:
    if explanation is None:
        if late is not None:
            st.info(f"No heatmap yet. {plain(str(late))} The decision does not wait for it.", icon=":material/timer:")
            st.button("Draw the heatmap", icon=":material/refresh:")
        return
    fine = heatmap.is_fine(explanation.grid)
    described = heat_in_words(explanation.grid, explanation.explained_class)
    heading = "Where the score came from" + ("" if fine else " (coarse)")
    with st.expander(heading, expanded=fine):
        st.write(described)
        opacity = st.slider("Opacity of the heatmap, in percent", 0, 100, 70, 5)
        name = LABELS.get(explanation.explained_class, explanation.explained_class)
        against = st.checkbox(f"Also show what spoke against “{name}”")
        drawn = heatmap.laid_over(heatmap.shown(photo.data), explanation.grid, opacity / 100, against=against)
        st.image(drawn, alt=f"Heatmap on the photo {printable(photo.name)}. {described}", width="stretch")
        st.html(heatmap.legend(explanation.explained_class, against=against))
        st.caption("It shows where the model looked, at the grain of its last layer. It is no proof of a forgery.")


def _trace(verdict: Verdict) -> None:
    st.caption(
        f"Model version {plain(verdict.model_version)} · request `{verdict.request_id}` · file "
        f"`{verdict.image_sha256[:16]}…`"
    )
