"""Orchestration: the DAG, where it runs, when it runs, and the `aidetect` command line."""

import serving  # noqa: F401 - tells the libraries to keep to themselves, before any of them loads
