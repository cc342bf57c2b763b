"""Starts the programs under test, loads them and keeps what was measured."""
