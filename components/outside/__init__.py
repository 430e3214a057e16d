"""A yardstick of one's own: how a model does on a labelled folder that has nothing to do with its training."""
