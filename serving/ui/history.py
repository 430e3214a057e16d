"""What this session judged, newest first."""

import streamlit as st

from serving.cases.words import printable, score_line, title
from serving.ui import export
from serving.ui.client import Refusal
from serving.ui.memory import HistoryEntry, Memory
from serving.ui.words import SUPPLEMENTARY, clock


def show(memory: Memory) -> None:
    """Draw the page; it needs no API."""
    st.title("History of this session")
    st.caption(f"Decisions and file names only, no images; gone when this tab is closed. {SUPPLEMENTARY}")
    entries = memory.history[::-1]
    if not entries:
        st.info("Nothing was judged in this session yet.", icon=":material/info:")
        return
    st.dataframe([_line(entry) for entry in entries], hide_index=True, alt="Photos judged in this session")
    rows = [
        {"judged_at": entry.at.isoformat(timespec="seconds"), **export.row(entry.file, entry.sha256, entry.outcome)}
        for entry in entries
    ]
    left, right = st.columns(2)
    left.download_button("Download CSV", export.as_csv(rows), "history.csv", "text/csv", on_click="ignore")
    if right.button("Clear the history", icon=":material/delete:"):
        memory.history.clear()
        st.rerun()


def _line(entry: HistoryEntry) -> dict[str, str]:
    outcome = entry.outcome
    line = {"Time": clock(entry.at), "File": printable(entry.file), "Model version": outcome.model_version}
    if isinstance(outcome, Refusal):
        return line | {"Decision": "■ none", "Score": "–", "Why": outcome.detail}
    why = str(outcome.reasons[0]["sentence"]) if outcome.reasons else ""
    return line | {"Decision": title(outcome.answer), "Score": score_line(outcome.answer), "Why": why}
