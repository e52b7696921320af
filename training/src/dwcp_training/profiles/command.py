"""Runs `dwcp profile` for a person."""

from dwcp_training.console import guarded, out
from dwcp_training.profiles import load_profile, profile_names, profile_yaml


def list_profiles() -> int:
    """Prints the names and descriptions of the profiles and returns the exit status."""
    width = max(map(len, profile_names()))
    for name in profile_names():
        out.print(f"{name:{width}}  {load_profile(name).description}")
    return 0


def show_profile(name: str) -> int:
    """Prints a profile as YAML and returns the exit status, as `run` does."""
    return guarded(lambda: out.print(profile_yaml(load_profile(name)), end=""), "There is nothing to show.")
