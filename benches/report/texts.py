"""What metrics and suites are called, and how they are measured: the same in every report."""

#: Titles of columns and plots.
METRICS = {
    "calls_per_second": "calls/s",
    "requests_per_second": "requests/s",
    "seconds_per_operation": "one operation",
    "cpu_per_call": "CPU a call",
    "cpu_per_request": "CPU a request",
    "sequential_p50": "p50",
    "sequential_p99": "p99",
    "bytes_per_connection": "memory a connection",
    "bytes_per_second": "throughput",
    "messages_per_second": "messages/s",
    "rounds_per_second": "rounds/s",
    "growth": "growth",
    "p50": "p50",
    "p99": "p99",
    "orders_per_second": "orders/s",
    "cpu_per_order": "CPU an order",
    "events_per_second": "events/s",
    "cpu_per_event": "CPU an event",
    "steps_per_second": "steps/s",
    "cpu_per_step": "CPU a step",
    "first_routed_call_p50": "registered to first call, p50",
    "first_routed_call_p99": "p99 of it",
    "start": "all lists there",
    "start_cpu": "CPU until then",
    "cpu_share": "CPU while nothing changes",
    "requests_at_rest": "requests/s while nothing changes",
    "sockets": "sockets",
    "tasks": "tasks",
    "resident": "memory of the process",
    "bytes_per_watch": "memory a watch",
    "update": "registered to told",
    "update_worst": "the slowest of 3",
}

#: Title and method of each suite.
SUITES = {
    "server": (
        "Servers",
        (
            "h2load sends a message of three fields with `grpc-timeout`, on so many connections (`-c`) "
            "with so many calls in flight on each (`-m`). A real client has checked the answer before, "
            "and the bytes of the replies are counted after: to HTTP, an error of gRPC is a success."
        ),
    ),
    "client": (
        "Clients",
        (
            "The same call against compiled servers, every reply checked: 100 callers at once, then one "
            "that waits for each reply. CPU is the client's own."
        ),
    ),
    "streams": (
        "Streams and large messages",
        (
            "Calls that stream 1,000 small messages from the server, ten streams that send a message and "
            "wait for its echo, and four callers that have 1 MiB echoed. Servers have a client in Go, "
            "clients a server in Go. Much of what large messages gain is memory that bascule keeps "
            "(decision 009): with the same two settings of glibc in its environment, grpcio.aio needs about "
            "the same CPU for them."
        ),
    ),
    "gateway": (
        "Gateways",
        (
            "`GET /api/v1/users/42` over h2c, to the same user service in Go. bascule verifies a token, "
            "decides two rate limits, writes the access log and counts; grpc-gateway does none of this."
        ),
    ),
    "memory": (
        "Memory",
        (
            "Resident memory of the server for each connection that has made one call and is idle now, "
            "and by how much a process grows while a long stream passes through it."
        ),
    ),
    "discovery": (
        "Discovery",
        (
            "A real Consul of one server beside it on the same cores. 100 times, a new instance is "
            "registered and called through a channel that waits for it; then one process watches many "
            "services and instances are added to some of them. Sockets count those for requests and "
            "those of blocking queries; tasks leave out the program's own, one that follows each watch."
        ),
    ),
    "sagas": (
        "Sagas",
        (
            "Runs of ten steps that do nothing, with a durable log in SQLite, one at a time and ten at a "
            "time. DBOS has every commit on the disk; bascule's sagas outlive the process by default, "
            "and with `fsync` the machine. CPU is the process's."
        ),
    ),
    "orders": (
        "Orders",
        (
            "`CreateOrder` of the reference shop: four services in one process that call each other over "
            "TCP, each with its own database, a durable saga of four steps, the outbox and its relay, and "
            "logs. An order has two products and a key that makes it repeatable. MariaDB and the customers "
            "share the other core. CPU is the shop's."
        ),
    ),
    "events": (
        "Events",
        (
            "From the outbox in SQLite by one relay through a real Redis to one consumer with an inbox in "
            "SQLite, all of bascule in one process. First an outbox that is full is drained; then events "
            "are stored one after the other, each timed from before its transaction until after its effect's."
        ),
    ),
    "codec": ("Codec", "betterproto2's message classes, and google's for scale. CPU time."),
    "policy": ("Policies", "Limits that are never reached, circuits that stay closed. CPU time."),
    "tracing": (
        "Tracing",
        "What it adds to a call, beside OpenTelemetry's own API. One core's time, without what sends spans.",
    ),
    "transcode": ("Transcoding", "Routes matched, JSON to protobuf and back. CPU time."),
}
