"""The first page: photos in, decisions and their evidence out."""

from typing import Final

import streamlit as st

from serving.ui import batch, case
from serving.ui.client import ApiError, Photo
from serving.ui.memory import Memory, content_hash
from serving.ui.messages import go_on_after, show_error
from serving.ui.words import SUPPLEMENTARY, plain

MIB: Final = 1 << 20


def show(memory: Memory) -> None:
    """Draw the page."""
    st.title("Real or AI-generated?")
    failure = None
    try:
        memory.refresh()
    except ApiError as error:
        failure = error
    if memory.about.caveat:
        st.warning(plain(memory.about.caveat), icon=":material/warning:")
    given = st.file_uploader(
        "Product photos: JPEG, PNG, WebP, AVIF, HEIC or GIF",
        accept_multiple_files=True,
        max_upload_size=max(1, memory.about.max_file_bytes // MIB),
        key="photos",
        help="One photo is looked at at once; several are sorted, the most suspicious first.",
    )
    if failure is not None:
        show_error(failure)
        return
    uploaded = [(content_hash(data), Photo(file.name, data)) for file in given or [] for data in (file.getvalue(),)]
    waits = None
    if len(uploaded) == 1:
        waits = case.show(memory, *uploaded[0])
    elif uploaded:
        waits = batch.show(memory, uploaded)
    st.caption(SUPPLEMENTARY)
    st.caption(f"{memory.client.privacy()} This page's history has decisions and file names, no images.")
    if waits is not None:
        go_on_after(waits)
