"""Which model answers, how good it is, and why it was let through."""

from typing import Any, Final

import streamlit as st

from serving.ui.client import ApiError
from serving.ui.memory import Memory
from serving.ui.messages import show_error
from serving.ui.words import SUPPLEMENTARY, figure, percent

OUTCOME: Final = {"passed": "✔ passed", "refused": "✘ refused", "reported": "○ reported, not enforced"}


def show(memory: Memory) -> None:
    """Draw the page."""
    st.title("The model that answers")
    try:
        model = memory.client.model()
    except ApiError as error:
        show_error(error)
        return
    columns = st.columns(4)
    columns[0].metric("Version", figure(model["version"]))
    columns[1].metric("Architecture", figure(model["architecture"]))
    columns[2].metric("Input", f"{model['input_size']} px")
    columns[3].metric("Threshold", percent(model["threshold"]))
    st.caption(f"Content address of the bundle: `{model['digest']}`")
    st.caption(SUPPLEMENTARY)
    _gate(model["verdict"])
    _figures(model["metrics"])
    st.subheader("How it was made", anchor=False)
    with st.expander("Release record"):
        st.json(model["release"] or {"release": "this bundle was not registered"})
    with st.expander("Manifest of the bundle"):
        st.json(model["manifest"], expanded=1)


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
        {"Check": check["name"], "Outcome": OUTCOME.get(check["outcome"], check["outcome"]), "Why": check["sentence"]}
        for check in verdict["checks"]
    ]
    st.dataframe(lines, hide_index=True, alt="Each check of the quality gate with its outcome")
    for note in verdict.get("notes", []):
        st.caption(note)


def _figures(metrics: dict[str, dict[str, float | None]] | None) -> None:
    st.subheader("Figures on the frozen test split", anchor=False)
    if metrics is None:
        st.warning("No evaluation came with this model.", icon=":material/warning:")
        return
    lines = [
        {
            "Figure": name,
            "Value": figure(found["value"]),
            "95 % interval": f"{figure(found.get('low'))} to {figure(found.get('high'))}",
        }
        for name, found in metrics.items()
    ]
    st.dataframe(lines, hide_index=True, alt="Figures of the model with their 95 percent intervals")
