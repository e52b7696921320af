"""How much one request may carry (rules W3, W4). Nothing is imported here: a supervisor needs no numpy to know them."""

MAX_SAMPLES = 256
"""Most samples in one request (W3)."""

MAX_BATCH_ITEMS = 16_384
"""Most items in one batch (W4)."""

MAX_BATCH_BYTES = 64 * 1024 * 1024
"""Largest batch in bytes (W4)."""
