"""How a failure looks on a page: what is wrong, what to do, and a way to try again."""

from typing import Final

import streamlit as st

from serving.ui.client import ApiError, Kind
from serving.ui.words import plain

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
