"""The dashboard of processes."""

from __future__ import annotations

from scripts.dashboards.asks import INSTANCE, JOB, ON, heat, least, quantile, rate, total, worst
from scripts.dashboards.grafana import Dashboard, Panel, Query, Row

__all__ = ["RUNTIME"]

UP = {"up": (1, "green"), "down": (0, "red")}


RUNTIME = Dashboard(
    "runtime",
    "bascule: runtime",
    "What processes are made of: event loops, threads, memory, configuration, certificates.",
    (JOB, INSTANCE),
    (
        Row(
            "Event loop",
            (
                Panel(
                    "Lag",
                    "How late timers are. What blocks the loop makes every call wait as long.",
                    "s",
                    [
                        Query(
                            quantile(0.99, "event_loop_lag_seconds", "job", "instance"),
                            "{{job}} {{instance}}",
                        )
                    ],
                    limits=[(0.1, "red")],
                ),
                Panel(
                    "Distribution of lag",
                    "How many timers were how late.",
                    "s",
                    heat("event_loop_lag_seconds"),
                    "heatmap",
                ),
                Panel(
                    "Tasks",
                    "Tasks that have not ended. They must not grow while requests do not.",
                    "none",
                    [Query(total("event_loop_tasks", "job", "instance"), "{{job}} {{instance}}")],
                ),
            ),
        ),
        Row(
            "Process",
            (
                Panel(
                    "CPU",
                    "Cores in use.",
                    "none",
                    [
                        Query(
                            rate("process_cpu_seconds_total", "job", "instance"),
                            "{{job}} {{instance}}",
                        )
                    ],
                ),
                Panel(
                    "Memory",
                    "Resident.",
                    "bytes",
                    [
                        Query(
                            total("process_resident_memory_bytes", "job", "instance"),
                            "{{job}} {{instance}}",
                        )
                    ],
                ),
                Panel(
                    "Open files",
                    "Sockets included, and how many there may be.",
                    "none",
                    [
                        Query(total("process_open_fds", "job", "instance"), "{{job}} {{instance}}"),
                        Query(
                            total("process_max_fds", "job", "instance"),
                            "{{job}} {{instance}} at most",
                        ),
                    ],
                ),
                Panel(
                    "Worker threads",
                    "At work, and tasks that wait for one.",
                    "none",
                    [
                        Query(
                            total(
                                "worker_threads",
                                "job",
                                "limiter",
                                "state",
                                where=f'{ON}, state!="size"',
                            ),
                            "{{job}} {{limiter}} {{state}}",
                        )
                    ],
                ),
                Panel(
                    "Garbage collections",
                    "By generation.",
                    "ops",
                    [
                        Query(
                            rate("python_gc_collections_total", "job", "generation"),
                            "{{job}} {{generation}}",
                        )
                    ],
                ),
                Panel(
                    "Bytes of requests that are not whole",
                    "Held by servers; there is a limit to them.",
                    "bytes",
                    [
                        Query(
                            total("server_incomplete_bytes", "job", "server"), "{{job}} {{server}}"
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Configuration",
            (
                Panel(
                    "Valid",
                    "Whether each source says what can be used.",
                    "none",
                    [
                        Query(
                            worst("config_invalid", "job", "instance", "source"),
                            "{{job}} {{source}}",
                        )
                    ],
                    "state-timeline",
                    words={"valid": (0, "green"), "invalid": (1, "red")},
                ),
                Panel(
                    "In reach",
                    "Whether each source answers.",
                    "none",
                    [
                        Query(
                            least("config_source_up", "job", "instance", "source"),
                            "{{job}} {{source}}",
                        )
                    ],
                    "state-timeline",
                    words=UP,
                ),
                Panel(
                    "Last found valid",
                    "When the configuration in force was.",
                    "dateTimeFromNow",
                    [
                        Query(
                            f"1000 * {least('config_last_reload_success_timestamp_seconds', 'job')}",
                            "{{job}}",
                        )
                    ],
                    "stat",
                ),
                Panel(
                    "Changes",
                    "How often it has changed since the start.",
                    "none",
                    [Query(worst("config_version", "job", "instance"), "{{job}} {{instance}}")],
                ),
            ),
            across=4,
        ),
        Row(
            "Certificates",
            (
                Panel(
                    "Valid for",
                    "Seconds until a certificate that is shown expires.",
                    "s",
                    [
                        Query(
                            f"{least('tls_certificate_not_after_timestamp_seconds', 'job', 'name')} - time()",
                            "{{job}} {{name}}",
                        )
                    ],
                ),
                Panel(
                    "Files",
                    "Whether changed files can be used; the last good certificate is shown if not.",
                    "none",
                    [
                        Query(
                            worst("tls_certificate_stale", "job", "instance", "name"),
                            "{{job}} {{name}}",
                        )
                    ],
                    "state-timeline",
                    words={"used": (0, "green"), "unusable": (1, "red")},
                ),
            ),
            across=2,
        ),
    ),
)
