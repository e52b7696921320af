"""Profiles: the schema of the contract, the seed's defaults, errors that name the key (S1-2, S1-3, S1-5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwcp.anomaly.v1 import features_pb2
from dwcp_training import profiles
from dwcp_training.profiles import ProfileError, load_profile, profile_names

YAML = (Path(profiles.__file__).parent / "dwcp.yaml").read_text(encoding="utf-8")


def test_features_are_those_of_rule_f2() -> None:
    schema = load_profile("dwcp").feature_schema
    assert (schema.name, schema.version) == ("dwcp", 1)
    rows = [(f.name, f.unit, f.minimum, f.maximum, f.warning, f.critical) for f in schema.features]
    assert rows == [
        ("bandwidth", "Mbps", 0, 100_000, 40, 10),
        ("latency", "ms", 0, 60_000, 50, 100),
        ("packet_loss", "%", 0, 100, 1, 5),
        ("jitter", "ms", 0, 10_000, 10, 30),
        ("cpu_usage", "%", 0, 100, 80, 95),
        ("memory_usage", "%", 0, 100, 85, 95),
        ("error_rate", "%", 0, 100, 1, 5),
    ]
    assert [f.name for f in schema.features if f.low_is_bad] == ["bandwidth"]
    assert schema.index("jitter") == 3
    with pytest.raises(KeyError, match="jiter"):
        schema.index("jiter")


def test_schema_makes_the_protobuf_message() -> None:
    schema = load_profile("dwcp").feature_schema
    message = features_pb2.FeatureSchema(**schema.model_dump())
    assert tuple(feature.name for feature in message.features) == schema.names
    assert message.features[0].maximum == 100_000.0


def test_defaults_are_those_of_the_seed() -> None:
    forest = load_profile("dwcp").detectors.isolation_forest
    assert (forest.contamination, forest.n_estimators, forest.max_samples) == (0.01, 100, "auto")
    assert (forest.max_features, forest.bootstrap, forest.seed) == (1.0, False, 42)
    lstm = load_profile("dwcp").detectors.lstm_autoencoder
    assert (lstm.window_size, lstm.epochs, lstm.batch_size, lstm.encoding_dim) == (10, 50, 32, 32)
    assert (lstm.hidden_units, lstm.dropout, lstm.learning_rate, lstm.validation_split) == (64, 0.2, 1e-3, 0.2)
    assert (lstm.early_stopping_patience, lstm.learning_rate_patience) == (10, 5)
    assert (lstm.learning_rate_factor, lstm.learning_rate_floor, lstm.threshold_percentile) == (0.5, 1e-5, 95.0)
    assert (lstm.optimizer, lstm.loss, lstm.seed) == ("adam", "mse", 42)


def test_every_packaged_profile_loads() -> None:
    assert "dwcp" in profile_names()
    for name in profile_names():
        profile = load_profile(name)
        assert profile.feature_schema.features or profile.reader.features == "numeric"


@pytest.mark.parametrize(
    ("old", "new", "field", "hint"),
    [
        ("contamination: 0.01", "contaminaton: 0.01", "detectors.isolation_forest.contaminaton", "'contamination'"),
        ("contamination: 0.01", "contamination: 0.9", "detectors.isolation_forest.contamination", "at most 0.5"),
        ("max_samples: auto", "max_samples: aut", "detectors.isolation_forest.max_samples", "'auto'"),
        ("max_samples: auto", "max_samples: 1", "detectors.isolation_forest.max_samples", "at least 2"),
        ("optimizer: adam", "optimizer: adma", "detectors.lstm_autoencoder.optimizer", "'adam'"),
        ("epochs: 50", "epochs: true", "detectors.lstm_autoencoder.epochs", "True"),
        ("epochs: 50", "epochs: fifty", "detectors.lstm_autoencoder.epochs", "fifty"),
        ("  lstm_autoencoder:", "  lstm_autuencoder:", "detectors.lstm_autuencoder", "'lstm_autoencoder'"),
        ("unit: Mbps, ", "", "feature_schema.features[0].unit", "missing"),
        ("warning: 80", "warning: 180", "feature_schema.features[4]", "warning 180"),
        ("minimum: 0, maximum: 100000", "minimum: 0, maximum: 0", "feature_schema.features[0]", "less than"),
        ("name: jitter", "name: latency", "feature_schema", "latency"),
        ("timestamp_column: timestamp", "timestamp_column: jitter", "profile", "jitter"),
        ("critical: 10}", "critical: 10, critical: 4}", "critical", "twice"),
        ("maximum: 60000", "maximum: .inf", "feature_schema.features[1].maximum", "finite"),
        ("version: 1", "version: 1 : 2", "profile", "not YAML"),
    ],
)
def test_wrong_key_or_value_names_itself(tmp_path: Path, old: str, new: str, field: str, hint: str) -> None:
    assert old in YAML
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert caught.value.field == field
    assert hint in str(caught.value)


def test_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.replace("learning_rate: 0.001", "learning_rate: 2e-3"), encoding="utf-8")
    assert load_profile(path).detectors.lstm_autoencoder.learning_rate == 2e-3


def test_unknown_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"'dwpc'.*Did you mean 'dwcp'"):
        load_profile("dwpc")
    with pytest.raises(ProfileError, match="cannot read"):
        load_profile(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ProfileError, match="keys and values"):
        load_profile(tmp_path / "list.yaml")
