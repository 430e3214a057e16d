"""The typed artifacts that pass between stages: what one stage writes and another reads stands here, once."""
