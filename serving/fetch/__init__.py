"""Fetches the photo behind an address of somebody else's: bounded in bytes, time, hops and in where it may lead."""

from serving.fetch.client import Fetcher, FetchLimits
from serving.fetch.refusals import REASONS
from serving.platform.errors import FetchRefusedError

__all__ = ["REASONS", "FetchLimits", "FetchRefusedError", "Fetcher"]
