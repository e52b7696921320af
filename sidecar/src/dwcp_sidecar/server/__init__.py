"""The gRPC server: `servicer` converts and delegates, `status` is the error table, `app` starts and stops it."""
