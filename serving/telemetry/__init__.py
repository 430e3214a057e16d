"""What the server says of itself: Prometheus metrics, JSON log lines, who asked.

`serving.http.telemetry` gathers it around every request.
"""

from serving.telemetry.logs import configure_logging
from serving.telemetry.metrics import Telemetry

__all__ = ["Telemetry", "configure_logging"]
