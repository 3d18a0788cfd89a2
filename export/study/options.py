"""The ``[options]`` of a study, as a cell reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .toml_checks import Table, a_switch, a_text


@dataclass(frozen=True)
class Options:
    """What a cell measures beside its own rows.

    Args:
        shifted: also score the rows with typing errors.
        out_of_domain: a data set on which the embeddings are tried as they are; empty for none.
    """

    shifted: bool = True
    out_of_domain: str = ""

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Options:
        """Check the table.

        Raises:
            RecipeError: an unknown key, or a value of another type.
        """
        given = Table("options.", table, "shifted out_of_domain")
        return cls(given.take("shifted", a_switch, True), given.take("out_of_domain", a_text, ""))
