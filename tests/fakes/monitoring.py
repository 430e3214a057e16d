"""Cloud Monitoring and Pub/Sub on loopback: instances are scraped, the plan's alert policy is evaluated and pushed.

Its query API (Managed Service for Prometheus) answers the handful of expressions that `aidetect retrain` asks.
"""

import base64
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.google_sign_in import Issuer, Quiet
from tests.fakes.loopback import LoopbackServer
from tests.fakes.policy import Policy, RefusedError

Sample = tuple[dict[str, str], float]
AGENT = "service-123456789012@gcp-sa-monitoring-notification.iam.gserviceaccount.com"
_EXPRESSION = re.compile(
    r"(?:topk\((?P<top>\d+), )?(?P<fold>max|min)(?: by \((?P<by>\w+)\))? ?"
    r"\((?P<name>\w+)(?P<labels>\{[^}]*\})?(?: (?P<test>==|>) (?P<than>[\d.]+))?\)"
    r"(?: (?P<over>>|>=) (?P<bound>[\d.]+))?\)?"
)


class Monitoring:
    """Scrapes `targets`, tells subscribers of incidents, answers queries."""

    def __init__(self, policy: Policy, issuer: Issuer, targets: list[str]) -> None:
        """Evaluate the policy `drift-alarm` of the plan on `targets`; tokens of a push are the issuer's."""
        self.policy, self.issuer, self.targets = policy, issuer, targets
        self.samples: list[tuple[str, dict[str, str], float]] = []
        self.open = False
        self.told: list[str] = []
        """State of each published incident."""
        self.answers: list[int] = []
        """Of every push."""
        self.readers: dict[str, str] = {}
        """Access token -> who shows it; empty: nobody is asked (a Prometheus of one's own)."""

    def scrape(self) -> None:
        """Read every instance."""
        self.samples = []
        for target in self.targets:
            text = httpx.get(f"{target}/metrics", timeout=30, trust_env=False).text
            for family in text_string_to_metric_families(text):
                self.samples += [(s.name, {**s.labels, "instance": target}, s.value) for s in family.samples]

    def query(self, expression: str) -> list[Sample]:
        """The vector of an expression.

        Raises:
            AssertionError: this is none of those that are answered here.
        """
        asked = _EXPRESSION.fullmatch(expression)
        assert asked is not None, expression
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', asked["labels"] or ""))
        folded: dict[str, float] = {}
        for name, labels, value in self.samples:
            than = float(asked["than"] or 0)
            tested = {"==": value == than, ">": value > than}.get(asked["test"] or "", not math.isnan(value))
            if name == asked["name"] and tested and wanted.items() <= labels.items():
                group = labels.get(asked["by"] or "", "")
                pick = max if asked["fold"] == "max" else min
                folded[group] = pick(folded.get(group, value), value)
        if asked["over"]:
            bound = float(asked["bound"])
            folded = {k: v for k, v in folded.items() if v > bound or (asked["over"] == ">=" and v == bound)}
        rows = sorted(folded.items(), key=lambda row: -row[1])[: int(asked["top"] or len(folded))]
        return [({asked["by"]: group} if asked["by"] else {}, value) for group, value in rows]

    def evaluate(self, front: str) -> None:
        """One look at the policy; where it changed, its incident goes to the topic and, twice, to `front`."""
        (rule,) = [r for r in self.policy.plan.of("google_monitoring_alert_policy") if "drift-alarm" in r["address"]]
        holds = bool(self.query(rule["conditions"][0]["condition_prometheus_query_language"][0]["query"]))
        if holds == self.open:
            return
        self.open = holds
        incident = {
            "incident_id": f"0.{len(self.told)}",
            "policy_name": rule["display_name"],
            "state": "open" if holds else "closed",
            "policy_user_labels": rule["user_labels"],
        }
        self.told.append(str(incident["state"]))
        self.policy.as_account(AGENT, "an incident is published")
        self.policy.require("pubsub.topics.publish", "topic aidetect-alerts")
        data = base64.b64encode(json.dumps({"version": "1.2", "incident": incident}).encode()).decode()
        self.answers += [self.push(front, data) for _ in range(2)]

    def push(self, front: str, data: str) -> int:
        """One delivery, signed in as the plan's subscription says; the status of the answer."""
        (subscription,) = self.policy.plan.of("google_pubsub_subscription")
        push = subscription["push_config"][0]
        endpoint, token = urlsplit(push["push_endpoint"]), push["oidc_token"][0]
        assert token["audience"] == f"{endpoint.scheme}://{endpoint.netloc}"
        signed = self.issuer.token(token["service_account_email"], front)
        message = {"data": data, "messageId": "1", "publishTime": "2026-11-27T12:00:00Z"}
        answer = httpx.post(
            f"{front}{endpoint.path}",
            json={"message": message, "subscription": f"projects/example-project/subscriptions/{subscription['name']}"},
            headers={"Authorization": f"Bearer {signed}"},
            timeout=120,
            trust_env=False,
        )
        return answer.status_code

    def answer(self, path: str, token: str) -> tuple[int, dict[str, Any]]:
        """What the query API answers."""
        if self.readers:
            self.policy.caller = self.readers.get(token, "")
            try:
                self.policy.require("monitoring.timeSeries.list")
            except RefusedError as error:
                return error.code, {"error": {"message": str(error)}}
        rows = self.query(parse_qs(urlsplit(path).query)["query"][0])
        found = [{"metric": labels, "value": [0, str(value)]} for labels, value in rows]
        return 200, {"status": "success", "data": {"resultType": "vector", "result": found}}


@contextmanager
def prometheus(monitoring: Monitoring, tls: Any = None) -> Iterator[str]:
    """Address of its query API, with TLS where an SSL context is given."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, document = monitoring.answer(self.path, token)
            self.reply(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    server = LoopbackServer(Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
