"""The one base of typed documents and configuration sections."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable, and refuses members it does not know.

    A figure that is not a number survives the file (as "NaN", "Infinity"), so that a gate can refuse it by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class Section(Frozen):
    """A section of the configuration: the sentence under a field is its documentation."""

    model_config = ConfigDict(use_attribute_docstrings=True)
