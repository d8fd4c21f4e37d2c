"""Whole systems: integer-exact references, real tokens, reports."""
