"""The Go package on arm64, under qemu-user."""
