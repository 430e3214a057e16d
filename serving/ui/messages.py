"""How a failure looks on a page: what is wrong, what to do, and a way to try again."""

import time
from typing import Final

import streamlit as st

from serving.ui.client import ApiError, Kind
from serving.ui.words import plain

MOST_WAIT_S: Final = 90
"""Windows of the API's limits are a minute long; after a longer wait it is asked again anyway."""

TITLE: Final[dict[Kind, str]] = {
    "unreachable": "The API is not reachable",
    "unauthorized": "The API key is missing or wrong",
    "rate_limited": "Too many requests",
    "refused": "The API refused this",
    "unavailable": "The API is busy or not ready",
    "failed": "The API failed",
}


def show_error(error: ApiError) -> None:
    """The failure, with a button that runs the page again."""
    trace = f" Request id: `{error.request_id}`." if error.request_id else ""
    st.error(f"**{TITLE[error.kind]}.** {plain(str(error))}{trace}", icon=":material/error:")
    st.button("Try again", icon=":material/refresh:")


def go_on_after(error: ApiError) -> None:
    """Count down what the API asked to wait, then run the page again; any click interrupts it."""
    place = st.empty()
    for left in range(min(error.retry_after_s or 1, MOST_WAIT_S), 0, -1):
        place.info(
            f"The API takes no more for the moment ({TITLE[error.kind].lower()}). It goes on by itself in {left} s.",
            icon=":material/timer:",
        )
        time.sleep(1)
    place.empty()
    st.rerun()
