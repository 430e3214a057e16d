"""Scores the exported bundle, through the serving code, on the frozen test split."""
