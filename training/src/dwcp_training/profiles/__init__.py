"""Profiles: which metrics are watched, and the defaults of the detectors trained on them.

A profile is a YAML file in this folder, or anywhere else. ``load_profile("dwcp")`` reads one and checks it; a wrong key
or value is a `ProfileError` that names it.
"""

from dwcp_training.profiles.errors import ProfileError
from dwcp_training.profiles.loader import load_profile, profile_names, profile_yaml
from dwcp_training.profiles.models import (
    Baseline,
    DenseAutoencoderDefaults,
    Detectors,
    DriftDefaults,
    EnsembleDefaults,
    Feature,
    FeatureSchema,
    Gate,
    IsolationForestDefaults,
    LocalOutlierFactorDefaults,
    LstmAutoencoderDefaults,
    LstmClassifierDefaults,
    MahalanobisDefaults,
    OneClassSvmDefaults,
    Profile,
    Reader,
    Recommended,
    Scaling,
)

__all__ = [
    "Baseline",
    "DenseAutoencoderDefaults",
    "Detectors",
    "DriftDefaults",
    "EnsembleDefaults",
    "Feature",
    "FeatureSchema",
    "Gate",
    "IsolationForestDefaults",
    "LocalOutlierFactorDefaults",
    "LstmAutoencoderDefaults",
    "LstmClassifierDefaults",
    "MahalanobisDefaults",
    "OneClassSvmDefaults",
    "Profile",
    "ProfileError",
    "Reader",
    "Recommended",
    "Scaling",
    "load_profile",
    "profile_names",
    "profile_yaml",
]
