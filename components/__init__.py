"""The six stages of the pipeline, one folder each, and the typed artifacts that pass between them."""
