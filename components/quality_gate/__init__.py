"""Judges the evaluation: nothing reaches users except through here."""
