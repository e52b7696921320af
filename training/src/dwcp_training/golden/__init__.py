"""Golden vectors: inputs that find mistakes, with the answers that every implementation must give (rules V1 to V5)."""

from dwcp_training.golden.make import make_golden

__all__ = ["make_golden"]
