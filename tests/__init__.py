"""Tests; `oracles` holds what they compare with."""
