"""The app as Streamlit runs it, without a browser."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from serving.detector.bundle import read_manifest
from tests.releases import make_evaluation, make_verdict
from tests.serving.processes import Server, free_port, serve
from tests.serving.ui.conftest import KEY

APP = Path(__file__).resolve().parents[3] / "serving" / "ui" / "app.py"


def text(app: AppTest) -> str:
    """All words on the page."""
    assert not app.exception, app.exception
    html = [str(getattr(element, "value", "")) for element in app.get("html")]
    kinds = (app.title, app.markdown, app.caption, app.error, app.info, app.success, app.warning)
    metrics = [f"{metric.label} {metric.value}" for metric in app.metric]
    return "\n".join([str(element.value) for kind in kinds for element in kind] + metrics + html)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def started(url: str, key: str = "") -> AppTest:
        monkeypatch.setenv("API_URL", url)
        monkeypatch.setenv("API_KEY", key)
        return AppTest.from_file(str(APP), default_timeout=120).run()

    return started


def page(name: str, url: str, key: str) -> AppTest:
    """One page by itself: AppTest cannot open a page of `st.navigation` that is a function."""
    script = (
        f"from serving.ui import {name}\nfrom serving.ui.client import Client\n"
        f"from serving.ui.memory import remembered\n{name}.show(remembered(Client({url!r}, {key!r})))"
    )
    return AppTest.from_string(script, default_timeout=120).run()


def test_it_starts_and_says_what_a_score_is_worth(api: Server, start: Callable[..., AppTest]) -> None:
    words = text(start(api.url, KEY))
    assert "Real or AI-generated?" in words
    assert "supplementary signal" in words
    assert "none is written to disk" in words


def test_an_api_that_is_down_is_said_with_a_way_back(start: Callable[..., AppTest]) -> None:
    app = start(f"http://127.0.0.1:{free_port()}")
    assert "The API is not reachable" in text(app)
    assert [button.label for button in app.button] == ["Try again"]


def test_the_operators_key_never_reaches_the_page(api: Server, start: Callable[..., AppTest]) -> None:
    app = start(api.url, KEY)
    (field,) = app.text_input
    assert field.value == "" and field.placeholder == "set by the operator"
    assert KEY not in text(app)


@pytest.mark.parametrize("name", ["model", "drift"])
def test_a_wrong_key_is_said_on_every_page(api: Server, name: str) -> None:
    assert "The API key is missing or wrong" in text(page(name, api.url, "wrong"))


def test_the_model_page_shows_version_and_that_nobody_gated_it(api: Server) -> None:
    words = text(page("model", api.url, KEY))
    assert "never went through the quality gate" in words
    assert ">toy</dd>" in words and ">32 px</dd>" in words


def test_the_model_page_shows_figures_and_the_gates_verdict(toy_bundle: Path, tmp_path: Path) -> None:
    bundle, digest = shutil.copytree(toy_bundle, tmp_path / "bundle"), read_manifest(toy_bundle).digest
    release = shutil.copytree(make_evaluation(tmp_path / "evaluation", digest), bundle / "release")
    shutil.copy(make_verdict(tmp_path / "verdict", digest) / "verdict.json", release)
    with serve(bundle, tmp_path / "log") as server:
        app = page("model", server.url, "")
    assert "PASSED: accuracy 94.0 %" in text(app)
    gate, figures = (table.value for table in app.dataframe)
    assert gate.values.tolist() == [["Accuracy", "✔ passed", "accuracy 94.0 % (at least 85 %)"]]
    assert figures.values.tolist()[0] == ["Accuracy", "0.94", "0.9 to 0.97"]


def test_names_of_files_are_not_markdown() -> None:
    script = "import streamlit as st\nfrom serving.ui.words import plain\nst.markdown(plain('a_b_[x](y)*.jpg'))"
    (found,) = AppTest.from_string(script).run().markdown
    assert found.value == r"a\_b\_\[x\]\(y\)\*\.jpg"


def test_the_drift_page_shows_the_state(api: Server) -> None:
    words = text(page("drift", api.url, KEY))
    assert "Collecting" in words and "Predictions in view" in words


def test_the_history_starts_empty(api: Server) -> None:
    assert "Nothing was judged" in text(page("history", api.url, KEY))
