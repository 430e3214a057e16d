"""A Cloud Run whose revisions are containers of the image they name, behind one address with a traffic split."""

import time
from typing import Any

import httpx

from tests.fakes.cloud_run import FakeCloudRun
from tests.fakes.google_rest import ApiError
from tests.fakes.servers import free_port
from tests.rehearsal.front import Front
from tests.rehearsal.images import Images

_START_S = 90.0


class ContainerCloudRun(FakeCloudRun):
    """Starts a revision when it first gets an address; it must pass its start-up probe, as on Cloud Run."""

    def __init__(self, client: Any, images: Images, platform: dict[str, str], image: str, environment: dict[str, str]):
        self._client, self._images, self._platform = client, images, platform
        self.containers: dict[str, tuple[Any, str]] = {}
        """Revision -> its container and address."""
        self.front = Front()
        super().__init__(lambda _: "", environment, image)

    def address(self, revision: str) -> str:
        """Where a revision answers; starts its container."""
        if revision not in self.containers:
            self.containers[revision] = self._started(revision)
        return self.containers[revision][1]

    def image(self, revision: str) -> str:
        """The image a revision was told to run, by digest."""
        return self.revisions[revision].containers[0].image

    def close(self) -> None:
        """Stop every revision."""
        super().close()
        self.front.close()
        for container, _ in self.containers.values():
            container.remove(force=True)

    def _settle(self) -> None:
        super()._settle()
        split = self.split
        self.front.share(split, {revision: self.address(revision) for revision in split})
        self.service.uri = self.front.url

    def _started(self, revision: str) -> tuple[Any, str]:
        port = free_port()
        container = self._client.containers.run(
            self._images.resolve(self.image(revision)),
            detach=True,
            # the platform's addresses stand in for Google's; the rest is the revision's own
            environment={**self._platform, **self.environment(revision), "PORT": str(port), "HOST": "127.0.0.1"},
            network_mode="host",
            mem_limit="2g",
            read_only=True,
            tmpfs={"/tmp": "", "/var/cache/aidetect": "uid=10001,gid=10001"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
        )
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            container.reload()
            if container.status == "exited":
                break
            try:
                if httpx.get(f"{url}/startup", trust_env=False, timeout=5).status_code == 200:
                    return container, url
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        words = container.logs(tail=5).decode(errors="replace").strip()
        container.remove(force=True)
        raise ApiError(400, f"revision {revision} did not pass its start-up probe: {words}")
