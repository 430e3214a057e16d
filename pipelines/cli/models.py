"""Verbs about data: import, verify, download."""

import typer


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
