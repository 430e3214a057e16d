"""Starting the training workflow on GitHub: one dispatch, with its reason as an input."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from serving.platform.errors import RetrainError

API: Final = "https://api.github.com"
WORKFLOW: Final = "model-training.yml"
HTTP_TIMEOUT_S: Final = 30.0
_REASON_CHARS: Final = 400
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_FIXES: Final = {
    401: "the token is not one of GitHub's, or ended; put a new one into the secret",
    403: "the token may not start workflows; grant it Actions: write on this repository",
    404: "no such repository or workflow, or one that the token does not see",
    422: "the workflow on that branch takes no such dispatch; push the current one",
}


@dataclass(slots=True)
class Dispatched:
    """A workflow run that GitHub was asked for; it says no number of it."""

    run_id: str
    status: str = "dispatched"


def dispatch(repository: str, reason: str, token: str, ref: str = "main", api: str = API) -> Dispatched:
    """Ask GitHub to run the training workflow.

    Args:
        repository: OWNER/NAME.
        reason: why, for the run's record; cut at 400 characters.
        token: may start workflows of that repository.
        ref: branch whose workflow runs.
        api: GitHub's API.

    Raises:
        RetrainError: a name that is none, no token, or GitHub refused.
    """
    import httpx

    if _REPOSITORY.fullmatch(repository) is None:
        raise RetrainError(f"--dispatch {repository!r}: write OWNER/NAME")
    if not token:
        raise RetrainError("--dispatch needs a token that may start workflows; set GITHUB_TOKEN")
    where = f"{repository} {WORKFLOW}"
    try:
        # of what it says only the status is read
        with httpx.stream(
            "POST",
            f"{api.rstrip('/')}/repos/{repository}/actions/workflows/{WORKFLOW}/dispatches",
            json={"ref": ref, "inputs": {"reason": reason[:_REASON_CHARS]}},
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            timeout=HTTP_TIMEOUT_S,
        ) as answer:
            status = answer.status_code
    except httpx.HTTPError as error:
        raise RetrainError(f"{where}: no answer of GitHub ({error}); try again") from error
    if not httpx.codes.is_success(status):
        fix = _FIXES.get(status, "see githubstatus.com and try again")
        raise RetrainError(f"{where}: HTTP {status}: {fix}")
    return Dispatched(f"{repository}@{datetime.now(UTC).isoformat(timespec='seconds')}")
