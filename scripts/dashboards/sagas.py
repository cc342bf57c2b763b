"""The dashboard of sagas and events."""

from __future__ import annotations

from scripts.dashboards.asks import INSTANCE, JOB, ON, quantile, rate, total, worst
from scripts.dashboards.grafana import Dashboard, Panel, Query, Row

__all__ = ["SAGAS"]


SAGAS = Dashboard(
    "sagas-and-events",
    "bascule: sagas and events",
    "What takes more than one step: runs of sagas, events on their way, and the databases that both are kept in.",
    (JOB, INSTANCE),
    (
        Row(
            "Sagas",
            (
                Panel(
                    "Parked",
                    "Runs that wait for a person: bascule saga list --state parked.",
                    "none",
                    [
                        Query(
                            worst("saga_unfinished", "saga", where=f'{ON}, state="parked"'),
                            "{{saga}}",
                        )
                    ],
                    "stat",
                    limits=[(1, "red")],
                ),
                Panel(
                    "Runs ended",
                    "By outcome. interrupted ones go on in another process, or in this one after a restart.",
                    "ops",
                    [Query(rate("saga_runs_total", "saga", "outcome"), "{{saga}} {{outcome}}")],
                    stacked=True,
                ),
                Panel(
                    "Unfinished runs",
                    "In the log, by state.",
                    "none",
                    [Query(worst("saga_unfinished", "saga", "state"), "{{saga}} {{state}}")],
                ),
                Panel(
                    "At work",
                    "Runs that processes are at.",
                    "none",
                    [Query(total("saga_active", "saga"), "{{saga}}")],
                ),
                Panel(
                    "Steps",
                    "Attempts by step and outcome.",
                    "ops",
                    [
                        Query(
                            rate(
                                "saga_step_duration_seconds_count", "saga", "step", "op", "outcome"
                            ),
                            "{{step}} {{op}} {{outcome}}",
                        )
                    ],
                ),
                Panel(
                    "Duration of steps",
                    "All but one attempt in twenty are faster.",
                    "s",
                    [
                        Query(
                            quantile(0.95, "saga_step_duration_seconds", "saga", "step", "op"),
                            "{{step}} {{op}}",
                        )
                    ],
                ),
                Panel(
                    "Taken over",
                    "Runs that another worker went on with, since their lease had passed.",
                    "ops",
                    [Query(rate("saga_lease_losses_total", "saga"), "{{saga}}")],
                ),
            ),
        ),
        Row(
            "Outboxes",
            (
                Panel(
                    "Waiting",
                    "Events that are committed and not published.",
                    "none",
                    [Query(worst("outbox_pending", "job", "outbox"), "{{outbox}}")],
                ),
                Panel(
                    "Oldest",
                    "How long the oldest of them has waited.",
                    "s",
                    [Query(worst("outbox_oldest_seconds", "job", "outbox"), "{{outbox}}")],
                    limits=[(60, "red")],
                ),
                Panel(
                    "Relayed",
                    "Events moved to the bus.",
                    "ops",
                    [Query(rate("outbox_relayed_total", "outbox"), "{{outbox}}")],
                ),
            ),
        ),
        Row(
            "Events",
            (
                Panel(
                    "Published",
                    "By topic.",
                    "ops",
                    [Query(rate("events_published_total", "topic"), "{{topic}}")],
                    stacked=True,
                ),
                Panel(
                    "Handled",
                    "By subscriber.",
                    "ops",
                    [
                        Query(
                            rate("events_handled_total", "topic", "subscriber"),
                            "{{subscriber}} {{topic}}",
                        )
                    ],
                ),
                Panel(
                    "Retried and put aside",
                    "Handlers that raised; what kept failing is a dead letter.",
                    "ops",
                    [
                        Query(
                            rate("events_retried_total", "topic", "subscriber"),
                            "{{subscriber}} {{topic}} retried",
                        ),
                        Query(
                            rate("events_dead_lettered_total", "topic", "subscriber"),
                            "{{subscriber}} {{topic}} dead letter",
                        ),
                    ],
                ),
                Panel(
                    "Lag",
                    "Events published and not handled.",
                    "none",
                    [Query(worst("events_lag", "topic", "subscriber"), "{{subscriber}} {{topic}}")],
                ),
                Panel(
                    "Lag in time",
                    "Age of the oldest event that is not handled.",
                    "s",
                    [
                        Query(
                            worst("events_lag_seconds", "topic", "subscriber"),
                            "{{subscriber}} {{topic}}",
                        )
                    ],
                    limits=[(60, "red")],
                ),
            ),
        ),
        Row(
            "Databases",
            (
                Panel(
                    "Connections",
                    "At work, of how many there may be.",
                    "none",
                    [
                        Query(
                            total(
                                "database_connections",
                                "database",
                                "state",
                                where=f'{ON}, state!="waiting"',
                            ),
                            "{{database}} {{state}}",
                        )
                    ],
                ),
                Panel(
                    "Transactions that wait",
                    "For a connection.",
                    "none",
                    [
                        Query(
                            total(
                                "database_connections", "database", where=f'{ON}, state="waiting"'
                            ),
                            "{{database}}",
                        )
                    ],
                    limits=[(1, "red")],
                ),
                Panel(
                    "Troubles",
                    "timeout: no connection became free; rerun: a deadlock or a lost connection; lost, unknown: it broke, during COMMIT.",
                    "ops",
                    [
                        Query(
                            rate("database_transaction_troubles_total", "database", "kind"),
                            "{{database}} {{kind}}",
                        )
                    ],
                ),
            ),
        ),
    ),
)
