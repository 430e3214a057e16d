"""The decision record as part of an answer."""

from typing import Final
from weakref import WeakKeyDictionary

from serving.cases import record
from serving.detector.conclusion import Policy
from serving.detector.detector import Detector
from serving.http.decisions import DecisionRecord
from serving.served import Served

_MADE: Final[WeakKeyDictionary[Detector, tuple[Policy, DecisionRecord]]] = WeakKeyDictionary()
"""A model's record never changes, and hashing its manifest for every answer costs 0.2 ms."""


def record_of(served: Served, policy: Policy) -> DecisionRecord:
    """By what this model decides under the deployment's policy."""
    made = _MADE.get(served.detector)
    if made is None or made[0] != policy:
        found = DecisionRecord.model_validate(record.record_of(served.detector, served.release, policy))
        made = _MADE[served.detector] = policy, found
    return made[1]
