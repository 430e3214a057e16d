"""Which code an image holds: what is compiled here calls into it, and must be of the same make."""

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.platform.answers import PLAIN, read_answer

if TYPE_CHECKING:
    import httpx

REVISION: Final = "org.opencontainers.image.revision"
MANIFESTS: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_CODE: Final = ("components", "pipelines", "serving")
_GIT_S: Final = 10.0


def other_code(client: "httpx.Client", repository: str, digest: str, auth: tuple[str, str] | None) -> str:
    """How an image's code differs from this clone's, as a sentence; empty where it does not, or nobody can tell.

    Args:
        client: asks the registry.
        repository: `https://HOST/v2/NAME`.
        digest: of the image, `sha256:...`.
        auth: user and password; None: the registry asks for none.
    """
    import httpx

    try:
        manifest = _read(client, f"{repository}/manifests/{digest}", auth)
        if "manifests" in manifest:
            manifest = _read(client, f"{repository}/manifests/{manifest['manifests'][0]['digest']}", auth)
        labels = _read(client, f"{repository}/blobs/{manifest['config']['digest']}", auth)["config"]["Labels"]
        built_from = str(labels[REVISION])
    except (httpx.HTTPError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return _difference(built_from)


def _read(client: "httpx.Client", url: str, auth: tuple[str, str] | None) -> dict[str, Any]:
    with client.stream("GET", url, headers={"Accept": MANIFESTS} | PLAIN, auth=auth) as answer:
        answer.raise_for_status()
        found: dict[str, Any] = json.loads(read_answer(answer))
    return found


def _difference(built_from: str) -> str:
    """Whether the code of that commit is the code here, committed or not."""
    here = Path(__file__).resolve().parents[1]
    commit = built_from.removesuffix("-dirty")
    if not commit.isalnum():
        return ""

    def git(*words: str) -> int:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, timeout=_GIT_S, check=False)
        return done.returncode

    try:
        if git("rev-parse", "--git-dir") != 0:
            return ""
        if git("cat-file", "-e", f"{commit}^{{commit}}") != 0:
            return f"was built from {built_from[:12]}, which this clone does not know; its stages run that code"
        same = git("diff", "--quiet", commit, "--", *_CODE) == 0
    except (OSError, subprocess.SubprocessError):
        return ""
    if same and commit == built_from:
        return ""
    return (
        f"was built from {built_from[:12]}{' with changes' if commit != built_from else ''}, whose code is not the one "
        "here; its stages run that code: build and pin images of this commit, or check that one out"
    )
