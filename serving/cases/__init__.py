"""One photo's case: what was decided by what, in words, and as a page to keep."""
