"""Whether the traffic still looks like what the model was judged on."""

from typing import Any, Final

import streamlit as st

from serving.ui.client import ApiError
from serving.ui.memory import Memory
from serving.ui.messages import show_error
from serving.ui.words import figure, percent

STATE: Final = {
    "collecting": "Collecting: too few predictions for a first test",
    "ok": "No drift in the last window",
    "drift": "Drift in the last window",
    "alarm": "Alarm: drift in two of the last three windows",
}


def show(memory: Memory) -> None:
    """Draw the page."""
    st.title("Drift")
    st.write("The latest predictions beside the reference the model came with. A window is tested when it is full.")
    try:
        drift = memory.client.drift()
    except ApiError as error:
        show_error(error)
        return
    _state(drift)
    columns = st.columns(4)
    columns[0].metric("Predictions in view", drift["window_size"])
    columns[1].metric("Called AI-generated", percent(drift["prediction_ratio"]))
    columns[2].metric("Mean probability", percent(drift["mean_probability"]))
    columns[3].metric("Low confidence", percent(drift["low_confidence_ratio"]))
    st.caption(
        f"Model version {drift['model_version']}, at {drift['timestamp']}. {drift['open_window']} predictions wait for "
        f"the next test; {drift['windows_closed']} windows are on record; the reference has {drift['reference_size']}."
    )
    _signals(drift["signals"])
    st.button("Refresh", icon=":material/refresh:")


def _state(drift: dict[str, Any]) -> None:
    words = STATE.get(drift["state"], drift["state"])
    if drift["state"] in ("drift", "alarm"):
        st.error(f"**{words}.** {drift['diagnosis']}", icon=":material/warning:")
    elif drift["state"] == "ok":
        st.success(f"{words}.", icon=":material/check_circle:")
    else:
        st.info(f"{words}.", icon=":material/hourglass:")
    for alert in drift["alerts"]:
        st.warning(f"{alert['severity']}: {alert['message']}", icon=":material/notification_important:")


def _signals(signals: dict[str, dict[str, Any]]) -> None:
    st.subheader("Signals of the last closed window", anchor=False)
    if not signals:
        st.info("No window was closed yet.", icon=":material/info:")
        return
    lines = [
        {
            "Signal": name,
            "Outcome": "▲ moved" if found["drifted"] else "● steady",
            "Effect": figure(found["score"]),
            "p value, corrected": figure(found["adjusted_p_value"]),
        }
        for name, found in signals.items()
    ]
    st.dataframe(lines, hide_index=True, alt="Each watched signal with its effect and its outcome")
