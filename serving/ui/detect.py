"""The first page: photos in, verdicts and their evidence out."""

import streamlit as st

from serving.ui import export, heatmap
from serving.ui.client import ApiError, Explanation, Photo, Refusal, Verdict
from serving.ui.memory import Memory, content_hash
from serving.ui.messages import show_error
from serving.ui.words import LABEL, SUPPLEMENTARY, label, percent, plain, sentence

Uploaded = list[tuple[str, Photo]]
"""(sha256, photo) in the order the user gave them."""


def show(memory: Memory) -> None:
    """Draw the page."""
    st.title("Real or AI-generated?")
    st.write("Drop product photos here: each is judged, and the model shows where its score came from.")
    given = st.file_uploader(
        "Photos (JPEG, PNG, WebP, AVIF, HEIC or GIF, up to 10 MB each)",
        accept_multiple_files=True,
        help="One photo gets its heatmap at once; several are judged as a batch.",
    )
    st.caption(SUPPLEMENTARY)
    try:
        memory.refresh()
        st.caption(f"{memory.client.privacy()} This page's history has verdicts and file names, no images.")
    except ApiError as error:
        show_error(error)
        return
    uploaded = [(content_hash(data), Photo(file.name, data)) for file in given or [] for data in (file.getvalue(),)]
    if len(uploaded) == 1:
        _one(memory, *uploaded[0])
    elif uploaded:
        _many(memory, uploaded)


def _one(memory: Memory, sha256: str, photo: Photo) -> None:
    try:
        with st.spinner(f"Judging {plain(photo.name)} …"):
            memory.explain(photo, sha256)
    except ApiError as error:
        show_error(error)
    else:
        _detail(memory, sha256, photo)


def _many(memory: Memory, uploaded: Uploaded) -> None:
    failure = None
    try:
        with st.spinner(f"Judging {len(uploaded)} photos …"):
            memory.judge(dict(uploaded))
    except ApiError as error:
        failure = error
    found = [(photo.name, memory.outcome(sha256)) for sha256, photo in uploaded]
    verdicts = [outcome for _, outcome in found if isinstance(outcome, Verdict)]
    ai = sum(verdict.prediction == "ai_generated" for verdict in verdicts)
    refused = sum(isinstance(outcome, Refusal) for _, outcome in found)
    columns = st.columns(4)
    columns[0].metric("Photos", len(found))
    columns[1].metric(label("ai_generated"), ai)
    columns[2].metric(label("real"), len(verdicts) - ai)
    columns[3].metric("Without a verdict", len(found) - len(verdicts))
    if failure is not None:
        show_error(failure)
    if refused:
        st.warning(f"The API refused {refused} of the files; the table says why.", icon=":material/warning:")
    if verdicts or refused:
        _table(uploaded, memory)
        _chosen(memory, uploaded)
        _downloads(memory, uploaded)


def _table(uploaded: Uploaded, memory: Memory) -> None:
    lines = []
    for sha256, photo in uploaded:
        outcome = memory.outcome(sha256)
        verdict = outcome if isinstance(outcome, Verdict) else None
        note = outcome.detail if isinstance(outcome, Refusal) else "" if outcome else "not judged yet"
        lines.append(
            {
                "File": photo.name,
                "Verdict": label(verdict.prediction) if verdict else "■ none",
                "Probability of AI": percent(verdict.probability) if verdict else "–",
                "Confidence": verdict.confidence if verdict else "–",
                "Note": note,
            }
        )
    st.dataframe(lines, hide_index=True, alt="Verdict, probability and confidence of each photo")
    st.caption(f"Judged by model version {memory.version}.")


def _chosen(memory: Memory, uploaded: Uploaded) -> None:
    judged = [i for i, (sha256, _) in enumerate(uploaded) if isinstance(memory.outcome(sha256), Verdict)]
    index = st.selectbox(
        "Show the heatmap of",
        judged,
        index=None,
        format_func=lambda i: uploaded[i][1].name,
        placeholder="Choose a photo",
        key="chosen-" + content_hash("".join(sha256 for sha256, _ in uploaded).encode()),
    )
    if index is not None:
        _one(memory, *uploaded[index])


def _downloads(memory: Memory, uploaded: Uploaded) -> None:
    rows = [export.row(photo.name, sha256, memory.outcome(sha256)) for sha256, photo in uploaded]
    left, right = st.columns(2)
    left.download_button("Download CSV", export.as_csv(rows), "verdicts.csv", "text/csv", on_click="ignore")
    right.download_button(
        "Download ZIP",
        lambda: export.as_zip(rows, _heatmaps(memory, uploaded)),
        "verdicts.zip",
        "application/zip",
        on_click="ignore",
        help="The table as CSV and JSON, and the heatmaps looked at so far.",
    )


def _heatmaps(memory: Memory, uploaded: Uploaded) -> dict[str, bytes]:
    found = {}
    for sha256, photo in uploaded:
        explanation = memory.explanation(sha256)
        if explanation is not None:
            image = heatmap.laid_over(heatmap.shown(photo.data), explanation.grid, 0.6, against=False)
            found[photo.name] = heatmap.png(image)
    return found


def _detail(memory: Memory, sha256: str, photo: Photo) -> None:
    outcome, explanation = memory.outcome(sha256), memory.explanation(sha256)
    if isinstance(outcome, Refusal):
        st.error(f"**{plain(photo.name)} has no verdict.** {plain(outcome.detail)}", icon=":material/error:")
    elif outcome is not None and explanation is not None:
        _verdict(outcome, photo)
        _evidence(explanation, photo)


def _verdict(verdict: Verdict, photo: Photo) -> None:
    st.subheader(plain(photo.name), anchor=False)
    columns = st.columns(3)
    columns[0].metric("Verdict", label(verdict.prediction), border=True)
    columns[1].metric("Probability of AI generation", percent(verdict.probability), border=True)
    columns[2].metric("Confidence", verdict.confidence, border=True)
    st.write(sentence(verdict))
    if verdict.confidence == "low":
        st.info("Low confidence: treat this photo as undecided.", icon=":material/help:")


def _evidence(explanation: Explanation, photo: Photo) -> None:
    name = LABEL.get(explanation.explained_class, explanation.explained_class)
    controls = st.columns(2)
    opacity = controls[0].slider("Opacity of the heatmap, in percent", 0, 100, 60, 5)
    against = controls[1].checkbox(f"Also show what spoke against “{name}”")
    original = heatmap.shown(photo.data)
    described = heatmap.described(explanation.grid, explanation.explained_class)
    left, right = st.columns(2)
    left.image(original, caption="The photo", alt=f"The photo {photo.name} as it was judged", width="stretch")
    right.image(
        heatmap.laid_over(original, explanation.grid, opacity / 100, against=against),
        caption="Where the score came from (Grad-CAM)",
        alt=f"Heatmap on the photo {photo.name}. {described}",
        width="stretch",
    )
    st.html(heatmap.legend(explanation.explained_class, against=against))
    st.write(described)
    st.caption("A heatmap shows where the model looked, at the grain of its last layer. It is no proof of a forgery.")
