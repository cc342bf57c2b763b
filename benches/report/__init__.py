"""Judges what was measured, and shows it: a table, JSON, Markdown."""
