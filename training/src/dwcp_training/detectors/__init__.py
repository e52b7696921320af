"""Detectors: how each is fitted. `registry.py` lists them."""
