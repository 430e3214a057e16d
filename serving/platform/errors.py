"""The errors a user meets: each is one line that names the problem and the fix.

The command line and the reader of a stage's log know "ours" by this base, never by a module's name: what is not an
`AidetectError` (or an `OSError`) is a defect and is shown with its type.
"""


class AidetectError(Exception):
    """An expected failure. The text is one line: what is wrong, where, and what to do."""
