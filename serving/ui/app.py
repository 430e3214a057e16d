"""`streamlit run serving/ui/app.py`: the frame around the pages."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import streamlit as st

from serving.ui import detect, drift, history, model
from serving.ui.client import Client
from serving.ui.memory import Memory, remembered
from serving.ui.settings import UiSettings, read_settings

# a file: a browser would ask a font's host for a named one (no docstring: Streamlit would show it on the page)
ICON: Final = Path(__file__).with_name("icon.png")


def main() -> None:
    """Draw the sidebar and the chosen page."""
    st.set_page_config(page_title="AI Product Photo Detector", page_icon=str(ICON), layout="wide")
    # no button of a hosting service that this page does not use
    st.set_option("client.toolbarMode", "viewer")
    memory = remembered(_client(read_settings()))
    pages = [
        _page(detect.show, memory, "Detect", "image_search", default=True),
        _page(history.show, memory, "History", "history"),
        _page(model.show, memory, "Model", "model_training"),
        _page(drift.show, memory, "Drift", "monitoring"),
    ]
    st.navigation(pages).run()


def _client(settings: UiSettings) -> Client:
    with st.sidebar:
        entered = st.text_input(
            "API key",
            type="password",
            placeholder="set by the operator" if settings.api_key else "none",
            help="Sent to the API as X-API-Key, kept for this browser session only. Empty: the operator's key, if any.",
            autocomplete="off",
        )
        st.caption(f"API: `{settings.api_url}`")
    return Client(settings.api_url, entered.strip() or settings.api_key)


def _page(show: Callable[[Memory], None], memory: Memory, title: str, icon: str, *, default: bool = False) -> Any:
    return st.Page(
        partial(show, memory), title=title, icon=f":material/{icon}:", url_path=title.lower(), default=default
    )


main()
