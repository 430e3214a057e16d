"""Does live traffic still look like what the model was judged on? Significance per window, off the request path."""
