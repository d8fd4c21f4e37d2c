"""Command-line program: every job a person runs."""
