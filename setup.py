"""List the packages: the repository root is the package `reaugkd`, below which pyproject.toml finds no packages."""

from setuptools import find_packages, setup

FOLDERS = ("batch", "commands", "export", "integrations", "kb", "runtime", "serve")

found = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])
# script_name keeps this file, which lies in the package's folder, out of the wheel.
setup(packages=["reaugkd", *(f"reaugkd.{name}" for name in found)], script_name="setup.py")
