"""Recipes against each other: tasks x recipes x seeds, resumable, with the statistics of what each is worth."""

from __future__ import annotations
