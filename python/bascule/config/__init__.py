"""Configuration: typed snapshots of layered sources."""
