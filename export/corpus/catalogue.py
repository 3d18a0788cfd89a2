"""All intents of the demo corpus, in one table."""

from __future__ import annotations

from . import (
    intents_calendar,
    intents_device,
    intents_home,
    intents_lights,
    intents_media,
    intents_people,
    intents_talk,
    intents_time,
    intents_tools,
    intents_world,
)
from .intent import Intent

INTENTS: tuple[Intent, ...] = (
    *intents_time.INTENTS,
    *intents_calendar.INTENTS,
    *intents_media.INTENTS,
    *intents_lights.INTENTS,
    *intents_home.INTENTS,
    *intents_people.INTENTS,
    *intents_world.INTENTS,
    *intents_tools.INTENTS,
    *intents_device.INTENTS,
    *intents_talk.INTENTS,
)
