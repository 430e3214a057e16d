"""The decision record as part of an answer."""

from serving.cases import record
from serving.detector.conclusion import Policy
from serving.http.decisions import DecisionRecord
from serving.served import Served


def record_of(served: Served, policy: Policy) -> DecisionRecord:
    """By what this model decides under the deployment's policy."""
    return DecisionRecord.model_validate(record.record_of(served.detector, served.release, policy))
