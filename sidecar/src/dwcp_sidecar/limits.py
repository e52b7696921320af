"""How much one request may carry (rules W3, W4, ST7). Nothing is imported: a supervisor needs no numpy to know it."""

MAX_SAMPLES = 256
"""Most samples in one request (W3)."""

MAX_BATCH_ITEMS = 16_384
"""Most items in one batch (W4)."""

MAX_BATCH_BYTES = 64 * 1024 * 1024
"""Largest batch in bytes (W4)."""

MAX_STREAM_SAMPLES = 4096
"""Most samples in one request of a stream (ST7)."""

MAX_SERIES_BYTES = 256
"""Longest name of a series, in UTF-8 (ST7)."""

DEFAULT_MAX_SETS = 1000
"""Sets of a fleet that a process keeps open (FL5). One with a forest of 100 trees takes 1.4 MB."""

MAX_CALIBRATION_SCORES = 2_000
"""Most scores of held-out data in a model's calibration (C1)."""
