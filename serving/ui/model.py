"""Which model answers, how good it is, and why it was let through."""

import html
from typing import Any, Final

import streamlit as st

from serving.ui.client import ApiError
from serving.ui.memory import Memory
from serving.ui.messages import show_error
from serving.ui.words import SUPPLEMENTARY, figure, figure_name, percent, plain

OUTCOME: Final = {"passed": "✔ passed", "refused": "✘ refused", "reported": "○ reported, not enforced"}


def show(memory: Memory) -> None:
    """Draw the page."""
    st.title("The model that answers")
    try:
        memory.refresh()
        model = memory.client.model()
    except ApiError as error:
        show_error(error)
        return
    facts = {
        "Version": figure(model["version"]),
        "Architecture": figure(model["architecture"]),
        "Input": f"{model['input_size']} px",
        "Called AI-generated from": percent(model["threshold"]),
        "Content address of the bundle": str(model["digest"]),
    }
    st.html(_as_facts(facts))
    if memory.about.caveat:
        st.warning(plain(memory.about.caveat), icon=":material/warning:")
    st.caption(SUPPLEMENTARY)
    _gate(model["verdict"])
    _figures(model["metrics"])
    st.subheader("How it was made", anchor=False)
    with st.expander("Release record"):
        st.json(model["release"] or {"release": "this bundle was not registered"})
    with st.expander("Manifest of the bundle"):
        st.json(model["manifest"], expanded=1)


def _as_facts(facts: dict[str, str]) -> str:
    """Names and values that wrap and are never cut."""
    rows = "".join(
        f'<dt style="opacity:.75;font-size:.9rem">{html.escape(name)}</dt>'
        f'<dd style="margin:0 0 .6rem;font-size:1.1rem;overflow-wrap:anywhere">{html.escape(value)}</dd>'
        for name, value in facts.items()
    )
    return f'<dl style="margin:0">{rows}</dl>'


def _gate(verdict: dict[str, Any] | None) -> None:
    st.subheader("Verdict of the quality gate", anchor=False)
    if verdict is None:
        st.warning("This model never went through the quality gate.", icon=":material/warning:")
        return
    if verdict["passed"]:
        st.success(verdict["headline"], icon=":material/check_circle:")
    else:
        st.error(verdict["headline"], icon=":material/cancel:")
    lines = [
        {
            "Check": figure_name(check["name"]),
            "Outcome": OUTCOME.get(check["outcome"], check["outcome"]),
            "Why": check["sentence"],
        }
        for check in verdict["checks"]
    ]
    st.dataframe(lines, hide_index=True, alt="Each check of the quality gate with its outcome")
    if notes := verdict.get("notes", []):
        st.markdown("Noted when this model was judged, before it could be promoted:")
        for note in notes:
            st.markdown(f"- {plain(note)}")


def _figures(metrics: dict[str, dict[str, float | None]] | None) -> None:
    st.subheader("Figures on the frozen test split", anchor=False)
    if metrics is None:
        st.warning("No evaluation came with this model.", icon=":material/warning:")
        return
    lines = [
        {
            "Figure": figure_name(name),
            "Value": figure(found["value"]),
            "95 % interval": f"{figure(found.get('low'))} to {figure(found.get('high'))}",
        }
        for name, found in metrics.items()
    ]
    st.dataframe(lines, hide_index=True, alt="Figures of the model with their 95 percent intervals")
