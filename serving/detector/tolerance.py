"""How exactly an engine has to repeat itself; alone, so that reading a configuration loads no array library."""

from typing import Final

GOLDEN_TOLERANCE: Final = 1e-3
"""Largest accepted difference of a probability from its recorded one: room for another CPU, not another model."""
