"""Tests of showing an instruction set share what it takes."""

from tests.shown_kit import environments, library

__all__ = ["environments", "library"]
