"""Exit statuses of commands that tell more than done, refused and wrong usage."""

DRIFT = 2
"""`dwcp drift` found drift (S3-4)."""

USAGE = 64
"""Wrong usage of a command whose 2 means something else: the number that sysexits.h gives it."""

PARTIAL = 3
"""`dwcp fleet` did its work, but for links that it names."""
