"""Trains the classifier, calibrates it and exports the bundle."""
