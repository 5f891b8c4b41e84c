"""Tests of the theory: every formula against something that does not know it."""
