"""Metrics of a service's life and of its configuration."""

from __future__ import annotations

from bascule.observe._families import Families, Family

__all__ = ["APP", "CONFIG"]

APP: Families = {
    "app_ready": Family("least", (), "1 while calls should be sent to this service"),
    "resource_open": Family("least", ("resource",), "1 while the resource is open"),
    "app_registered": Family("least", ("service",), "1 while the registry knows this instance"),
}

CONFIG: Families = {
    "config_invalid": Family(
        "gauge", ("source",), "1 while a source says what cannot be used; the last good holds"
    ),
    "config_source_up": Family("least", ("source",), "0 while a source cannot be reached"),
    "config_last_reload_success_timestamp_seconds": Family(
        "least", (), "When the configuration in force was last found valid"
    ),
    "config_version": Family("gauge", (), "How often the configuration has changed"),
}
