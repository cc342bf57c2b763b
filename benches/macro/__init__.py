"""The suites that measure whole programs, each process on a core of its own."""

from benches.macro._settings import Settings as Settings
