"""Brings a registered version into service, or leaves everything as it was."""
