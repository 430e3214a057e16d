"""True labels of judged photos: remembered predictions, what is told of them, and the photos that are kept."""
