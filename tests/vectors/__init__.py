"""Frozen golden vectors beyond those of the model sets (rule V5)."""
