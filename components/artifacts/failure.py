"""How a stage says that it cannot go on."""


class StageError(RuntimeError):
    """An expected failure of a stage: one line that names the problem and the fix."""
