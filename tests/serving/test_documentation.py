"""The pages that describe the API work without internet: every script, style and picture is this server's own."""

import re

import pytest
from fastapi.testclient import TestClient

OWN = re.compile(r'(?:src|href)="([^"]+)"')


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/docs/"])
def test_a_page_asks_for_nothing_that_is_not_here(client: TestClient, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    named = OWN.findall(answer.text)
    assert named
    assert [url for url in re.findall(r"(?:https?:)?//[^\s\"'<]+", answer.text) if "github.com" not in url] == []
    for url in named:
        got = client.get(url)
        assert (url, got.status_code) == (url, 200)
        assert len(got.content) > 1000
        expected = {"js": "javascript", "css": "text/css", "png": "image/png"}[url.rpartition(".")[2]]
        assert expected in got.headers["content-type"]
        assert client.head(url).status_code == 200


def test_its_policy_lets_no_page_load_from_elsewhere(client: TestClient) -> None:
    policy = client.get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "http" not in policy and "*" not in policy


@pytest.mark.parametrize("name", ["secret", "..%2fconsts.py", "%2e%2e/consts.py", "swagger-ui.css%0a", "x" * 300])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 700


def test_the_pages_are_no_part_of_the_description(client: TestClient) -> None:
    assert [path for path in client.get("/openapi.json").json()["paths"] if "docs" in path] == []
