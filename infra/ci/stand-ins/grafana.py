"""Stands in for Grafana where its image cannot be pulled: does what it would be provisioned with hold together?

Not Grafana: nothing is drawn, no query is sent. `/api/health` answers 200 when every provisioning file was readable at
Grafana's own paths as Grafana's own user, every provider's folder has dashboards, and every dashboard names a data
source that is provisioned.
"""

import json
import pathlib
from http.server import BaseHTTPRequestHandler, HTTPServer

import yaml

PROVISIONING = pathlib.Path("/etc/grafana/provisioning")


def provisioned() -> dict[str, object]:
    """Data sources and dashboards found; raises where Grafana would have logged an error."""
    sources = [
        s for f in sorted(PROVISIONING.glob("datasources/*.y*ml")) for s in yaml.safe_load(f.read_text())["datasources"]
    ]
    providers = [
        p for f in sorted(PROVISIONING.glob("dashboards/*.y*ml")) for p in yaml.safe_load(f.read_text())["providers"]
    ]
    uids = {source["uid"] for source in sources}
    titles = []
    for provider in providers:
        folder = pathlib.Path(provider["options"]["path"])
        files = sorted(folder.rglob("*.json"))
        if not files:
            raise LookupError(f"the provider {provider['name']} finds no dashboard in {folder}")
        for file in files:
            dashboard = json.loads(file.read_text())
            named = {
                t["datasource"]["uid"]
                for p in dashboard["panels"]
                for t in [p, *p.get("targets", [])]
                if isinstance(t.get("datasource"), dict)
            }
            unknown = {uid for uid in named if uid not in uids and not uid.startswith(("$", "-- "))}
            if unknown:
                raise LookupError(f"{file.name} names data sources that are not provisioned: {sorted(unknown)}")
            titles.append(dashboard["title"])
    return {"datasources": sorted(uids), "dashboards": titles}


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with what is provisioned, or 503 with what is wrong with it."""

    def do_GET(self) -> None:
        """One answer."""
        try:
            status, body = 200, provisioned()
        except (OSError, KeyError, TypeError, LookupError, ValueError, yaml.YAMLError) as error:
            status, body = 503, {"error": f"{type(error).__name__}: {error}"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


HTTPServer(("0.0.0.0", 3000), Handler).serve_forever()  # noqa: S104 - inside its container
