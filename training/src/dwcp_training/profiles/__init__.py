"""Profiles: which metrics are watched, and the defaults of the detectors trained on them.

A profile is a YAML file in this folder, or anywhere else. ``load_profile("dwcp")`` reads one and checks it; a wrong key
or value is a `ProfileError` that names it.
"""

from dwcp_training.profiles.errors import ProfileError
from dwcp_training.profiles.loader import load_profile, profile_names
from dwcp_training.profiles.models import (
    Detectors,
    Feature,
    FeatureSchema,
    IsolationForestDefaults,
    LstmAutoencoderDefaults,
    Profile,
    Recommended,
)

__all__ = [
    "Detectors",
    "Feature",
    "FeatureSchema",
    "IsolationForestDefaults",
    "LstmAutoencoderDefaults",
    "Profile",
    "ProfileError",
    "Recommended",
    "load_profile",
    "profile_names",
]
