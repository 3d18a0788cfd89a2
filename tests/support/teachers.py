"""Teachers that worker processes can import."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reaugkd.runtime.inference.text.inputs import Text


class AlwaysLast:
    """A teacher of three labels that is quite sure of the last one."""

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        return np.tile(np.array([0.0, 0.0, 3.0], np.float32), (len(texts), 1))
