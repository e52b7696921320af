"""The gRPC server.

What a call meets, in this order: `gate` takes it or refuses it, `calls` is the way of every call, `servicer`, `streams`
and `oip` have the methods, `messages` and `wire` write the answers, `status` is the error table.

What it works with: `live` holds the model set in use, `reload` watches the folder, `candidate` opens what is there.

What it runs in: `flags` and `settings` say how; `app` binds, answers and drains; `serving` puts a process together.
`single` is a process without workers; `supervisor` has workers (`worker_process`, `worker`), `control` is the way
between them. `tcp`, `unix_socket`, `outgoing` and `signals` know the operating system, `memory` the C library,
`announce` says that it is ready.

Beside it: `tls`, `metrics` and `metrics_page`, `logs`, `tracing`.
"""
