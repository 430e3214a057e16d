"""The six stages of the pipeline, one folder each, and the typed artifacts that pass between them."""

import serving  # noqa: F401 - tells the libraries to keep to themselves, before any of them loads
