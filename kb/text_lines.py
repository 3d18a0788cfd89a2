"""How a text or a pair is written as one line of JSON."""

from __future__ import annotations

import json


def text_json(text: str | tuple[str, str]) -> bytes:
    """The JSON of a text, or the list of a pair, in UTF-8."""
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate: legal in Python and JSON, not in UTF-8
        return json.dumps(text).encode()
