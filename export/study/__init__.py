"""Study: compare recipes over tasks and seeds, with statistical tests, tables and plots; resumable."""

from __future__ import annotations
