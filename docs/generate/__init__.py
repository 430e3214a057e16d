"""References and the architecture picture, written from the code: `python -m docs.generate`."""
