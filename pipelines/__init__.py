"""Orchestration: the DAG, where it runs, when it runs, and the `aidetect` command line."""
