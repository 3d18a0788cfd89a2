"""Independent random streams, derived from one seed and a number."""

from __future__ import annotations


def mix_seed(seed: int, number: int) -> int:
    """Mix two numbers into a 63-bit seed, so that close seeds give independent streams."""
    value = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    value ^= value >> 31
    return (value * 0xD6E8FEB86659FD93 & (2**64 - 1)) >> 1
