"""The demo's corpus: on-device voice-assistant intents, generated from hand-written grammars."""

from __future__ import annotations

from .generate import generate

__all__ = ["generate"]
