"""Objectives: the terms of the student's loss, one file each, and the registry in which recipes find them by name.

A new objective needs one new file here, with a subclass of `base.Objective` that is registered and imported below.
"""

from . import amad, compress, compress_2q, disk, general, hard_labels, mixkd, reaugkd, sea, soft_label_kd
from .base import Distillation, DistillationStep, Objective, Targets
from .registry import WeightedSum, build, names, register

__all__ = [
    "Distillation",
    "DistillationStep",
    "Objective",
    "Targets",
    "WeightedSum",
    "amad",
    "build",
    "compress",
    "compress_2q",
    "disk",
    "general",
    "hard_labels",
    "mixkd",
    "names",
    "reaugkd",
    "register",
    "sea",
    "soft_label_kd",
]
