from dwcp.anomaly.v1 import features_pb2 as _features_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Detector(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DETECTOR_UNSPECIFIED: _ClassVar[Detector]
    DETECTOR_ISOLATION_FOREST: _ClassVar[Detector]
    DETECTOR_LSTM_AUTOENCODER: _ClassVar[Detector]
    DETECTOR_DENSE_AUTOENCODER: _ClassVar[Detector]
    DETECTOR_LOCAL_OUTLIER_FACTOR: _ClassVar[Detector]
    DETECTOR_ONE_CLASS_SVM: _ClassVar[Detector]
    DETECTOR_LSTM_CLASSIFIER: _ClassVar[Detector]
    DETECTOR_ENSEMBLE: _ClassVar[Detector]
    DETECTOR_MAHALANOBIS: _ClassVar[Detector]

class ParityClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARITY_CLASS_UNSPECIFIED: _ClassVar[ParityClass]
    PARITY_CLASS_EXACT: _ClassVar[ParityClass]
    PARITY_CLASS_TOLERANCE: _ClassVar[ParityClass]

class FileRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_ROLE_UNSPECIFIED: _ClassVar[FileRole]
    FILE_ROLE_SERVING: _ClassVar[FileRole]
    FILE_ROLE_BYPRODUCT: _ClassVar[FileRole]
DETECTOR_UNSPECIFIED: Detector
DETECTOR_ISOLATION_FOREST: Detector
DETECTOR_LSTM_AUTOENCODER: Detector
DETECTOR_DENSE_AUTOENCODER: Detector
DETECTOR_LOCAL_OUTLIER_FACTOR: Detector
DETECTOR_ONE_CLASS_SVM: Detector
DETECTOR_LSTM_CLASSIFIER: Detector
DETECTOR_ENSEMBLE: Detector
DETECTOR_MAHALANOBIS: Detector
PARITY_CLASS_UNSPECIFIED: ParityClass
PARITY_CLASS_EXACT: ParityClass
PARITY_CLASS_TOLERANCE: ParityClass
FILE_ROLE_UNSPECIFIED: FileRole
FILE_ROLE_SERVING: FileRole
FILE_ROLE_BYPRODUCT: FileRole

class Scaler(_message.Message):
    __slots__ = ("mean", "scale")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    mean: _containers.RepeatedScalarFieldContainer[float]
    scale: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, mean: _Optional[_Iterable[float]] = ..., scale: _Optional[_Iterable[float]] = ...) -> None: ...

class Tolerance(_message.Message):
    __slots__ = ("relative_score", "guard_band")
    RELATIVE_SCORE_FIELD_NUMBER: _ClassVar[int]
    GUARD_BAND_FIELD_NUMBER: _ClassVar[int]
    relative_score: float
    guard_band: float
    def __init__(self, relative_score: _Optional[float] = ..., guard_band: _Optional[float] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("scores", "source")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    source: str
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., source: _Optional[str] = ...) -> None: ...

class DriftFeature(_message.Message):
    __slots__ = ("edges", "counts", "scale", "psi_critical", "wasserstein_critical")
    EDGES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PSI_CRITICAL_FIELD_NUMBER: _ClassVar[int]
    WASSERSTEIN_CRITICAL_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    scale: float
    psi_critical: _containers.RepeatedScalarFieldContainer[float]
    wasserstein_critical: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, edges: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., scale: _Optional[float] = ..., psi_critical: _Optional[_Iterable[float]] = ..., wasserstein_critical: _Optional[_Iterable[float]] = ...) -> None: ...

class DriftReference(_message.Message):
    __slots__ = ("features", "sizes", "rate", "psi_threshold", "wasserstein_threshold")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    PSI_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    WASSERSTEIN_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedCompositeFieldContainer[DriftFeature]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    rate: float
    psi_threshold: float
    wasserstein_threshold: float
    def __init__(self, features: _Optional[_Iterable[_Union[DriftFeature, _Mapping]]] = ..., sizes: _Optional[_Iterable[int]] = ..., rate: _Optional[float] = ..., psi_threshold: _Optional[float] = ..., wasserstein_threshold: _Optional[float] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("file", "available", "unavailable_reason", "layout", "operator_counts", "precision")
    class OperatorCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FILE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_REASON_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    file: str
    available: bool
    unavailable_reason: str
    layout: str
    operator_counts: _containers.ScalarMap[str, int]
    precision: str
    def __init__(self, file: _Optional[str] = ..., available: _Optional[bool] = ..., unavailable_reason: _Optional[str] = ..., layout: _Optional[str] = ..., operator_counts: _Optional[_Mapping[str, int]] = ..., precision: _Optional[str] = ...) -> None: ...

class ForestParameters(_message.Message):
    __slots__ = ("max_samples", "depth_threshold", "score_rate")
    MAX_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SCORE_RATE_FIELD_NUMBER: _ClassVar[int]
    max_samples: int
    depth_threshold: float
    score_rate: float
    def __init__(self, max_samples: _Optional[int] = ..., depth_threshold: _Optional[float] = ..., score_rate: _Optional[float] = ...) -> None: ...

class LstmParameters(_message.Message):
    __slots__ = ("units", "encoding_dim", "threshold_percentile")
    UNITS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_DIM_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    units: _containers.RepeatedScalarFieldContainer[int]
    encoding_dim: int
    threshold_percentile: float
    def __init__(self, units: _Optional[_Iterable[int]] = ..., encoding_dim: _Optional[int] = ..., threshold_percentile: _Optional[float] = ...) -> None: ...

class DenseParameters(_message.Message):
    __slots__ = ("units", "activation", "threshold_percentile")
    UNITS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    units: _containers.RepeatedScalarFieldContainer[int]
    activation: str
    threshold_percentile: float
    def __init__(self, units: _Optional[_Iterable[int]] = ..., activation: _Optional[str] = ..., threshold_percentile: _Optional[float] = ...) -> None: ...

class NeighborParameters(_message.Message):
    __slots__ = ("n_neighbors", "rows")
    N_NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    n_neighbors: int
    rows: int
    def __init__(self, n_neighbors: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class SvmParameters(_message.Message):
    __slots__ = ("gamma", "nu", "support_vectors")
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    NU_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_VECTORS_FIELD_NUMBER: _ClassVar[int]
    gamma: float
    nu: float
    support_vectors: int
    def __init__(self, gamma: _Optional[float] = ..., nu: _Optional[float] = ..., support_vectors: _Optional[int] = ...) -> None: ...

class ClassifierParameters(_message.Message):
    __slots__ = ("units", "normal_windows", "anomalous_windows")
    UNITS_FIELD_NUMBER: _ClassVar[int]
    NORMAL_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    ANOMALOUS_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    units: _containers.RepeatedScalarFieldContainer[int]
    normal_windows: int
    anomalous_windows: int
    def __init__(self, units: _Optional[_Iterable[int]] = ..., normal_windows: _Optional[int] = ..., anomalous_windows: _Optional[int] = ...) -> None: ...

class MahalanobisParameters(_message.Message):
    __slots__ = ("ridge", "limit_start", "limit_slope")
    RIDGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_START_FIELD_NUMBER: _ClassVar[int]
    LIMIT_SLOPE_FIELD_NUMBER: _ClassVar[int]
    ridge: float
    limit_start: _containers.RepeatedScalarFieldContainer[float]
    limit_slope: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, ridge: _Optional[float] = ..., limit_start: _Optional[_Iterable[float]] = ..., limit_slope: _Optional[_Iterable[float]] = ...) -> None: ...

class EnsembleMember(_message.Message):
    __slots__ = ("detector", "weight", "threshold", "low", "high")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    detector: Detector
    weight: float
    threshold: float
    low: float
    high: float
    def __init__(self, detector: _Optional[_Union[Detector, str]] = ..., weight: _Optional[float] = ..., threshold: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class EnsembleParameters(_message.Message):
    __slots__ = ("members", "critical_threshold")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[EnsembleMember]
    critical_threshold: float
    def __init__(self, members: _Optional[_Iterable[_Union[EnsembleMember, _Mapping]]] = ..., critical_threshold: _Optional[float] = ...) -> None: ...

class TrainingRecord(_message.Message):
    __slots__ = ("data_fingerprint", "data_source", "rows_read", "fitted_on", "held_out", "dropped", "first_timestamp", "last_timestamp", "warnings", "seed", "hyperparameters", "history", "library_versions")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class HyperparametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class HistoryEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Series
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Series, _Mapping]] = ...) -> None: ...
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DATA_SOURCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_READ_FIELD_NUMBER: _ClassVar[int]
    FITTED_ON_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    LAST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    data_fingerprint: str
    data_source: str
    rows_read: int
    fitted_on: int
    held_out: int
    dropped: _containers.ScalarMap[str, int]
    first_timestamp: str
    last_timestamp: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    hyperparameters: _containers.ScalarMap[str, str]
    history: _containers.MessageMap[str, Series]
    library_versions: _containers.ScalarMap[str, str]
    def __init__(self, data_fingerprint: _Optional[str] = ..., data_source: _Optional[str] = ..., rows_read: _Optional[int] = ..., fitted_on: _Optional[int] = ..., held_out: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., first_timestamp: _Optional[str] = ..., last_timestamp: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., hyperparameters: _Optional[_Mapping[str, str]] = ..., history: _Optional[_Mapping[str, Series]] = ..., library_versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class ModelMetadata(_message.Message):
    __slots__ = ("schema_version", "model_type", "n_features", "feature_names", "n_estimators", "contamination", "timesteps", "threshold", "feature_schema", "cadence_seconds", "scaler", "reference_values", "parity_class", "tolerance", "calibration", "graph", "forest", "lstm", "training", "dense", "neighbors", "svm", "classifier", "ensemble", "drift", "mahalanobis")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    N_FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    N_ESTIMATORS_FIELD_NUMBER: _ClassVar[int]
    CONTAMINATION_FIELD_NUMBER: _ClassVar[int]
    TIMESTEPS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    CADENCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SCALER_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_VALUES_FIELD_NUMBER: _ClassVar[int]
    PARITY_CLASS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    FOREST_FIELD_NUMBER: _ClassVar[int]
    LSTM_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    SVM_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    ENSEMBLE_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    MAHALANOBIS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    model_type: str
    n_features: int
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    n_estimators: int
    contamination: float
    timesteps: int
    threshold: float
    feature_schema: _features_pb2.FeatureSchema
    cadence_seconds: float
    scaler: Scaler
    reference_values: _containers.RepeatedScalarFieldContainer[float]
    parity_class: ParityClass
    tolerance: Tolerance
    calibration: Calibration
    graph: Graph
    forest: ForestParameters
    lstm: LstmParameters
    training: TrainingRecord
    dense: DenseParameters
    neighbors: NeighborParameters
    svm: SvmParameters
    classifier: ClassifierParameters
    ensemble: EnsembleParameters
    drift: DriftReference
    mahalanobis: MahalanobisParameters
    def __init__(self, schema_version: _Optional[int] = ..., model_type: _Optional[str] = ..., n_features: _Optional[int] = ..., feature_names: _Optional[_Iterable[str]] = ..., n_estimators: _Optional[int] = ..., contamination: _Optional[float] = ..., timesteps: _Optional[int] = ..., threshold: _Optional[float] = ..., feature_schema: _Optional[_Union[_features_pb2.FeatureSchema, _Mapping]] = ..., cadence_seconds: _Optional[float] = ..., scaler: _Optional[_Union[Scaler, _Mapping]] = ..., reference_values: _Optional[_Iterable[float]] = ..., parity_class: _Optional[_Union[ParityClass, str]] = ..., tolerance: _Optional[_Union[Tolerance, _Mapping]] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ..., graph: _Optional[_Union[Graph, _Mapping]] = ..., forest: _Optional[_Union[ForestParameters, _Mapping]] = ..., lstm: _Optional[_Union[LstmParameters, _Mapping]] = ..., training: _Optional[_Union[TrainingRecord, _Mapping]] = ..., dense: _Optional[_Union[DenseParameters, _Mapping]] = ..., neighbors: _Optional[_Union[NeighborParameters, _Mapping]] = ..., svm: _Optional[_Union[SvmParameters, _Mapping]] = ..., classifier: _Optional[_Union[ClassifierParameters, _Mapping]] = ..., ensemble: _Optional[_Union[EnsembleParameters, _Mapping]] = ..., drift: _Optional[_Union[DriftReference, _Mapping]] = ..., mahalanobis: _Optional[_Union[MahalanobisParameters, _Mapping]] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("path", "sha256", "size", "role")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    size: int
    role: FileRole
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., size: _Optional[int] = ..., role: _Optional[_Union[FileRole, str]] = ...) -> None: ...

class ModelEntry(_message.Message):
    __slots__ = ("detector", "metadata", "graph", "golden")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FIELD_NUMBER: _ClassVar[int]
    detector: Detector
    metadata: str
    graph: str
    golden: str
    def __init__(self, detector: _Optional[_Union[Detector, str]] = ..., metadata: _Optional[str] = ..., graph: _Optional[str] = ..., golden: _Optional[str] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("schema_version", "models", "files")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    models: _containers.RepeatedCompositeFieldContainer[ModelEntry]
    files: _containers.RepeatedCompositeFieldContainer[FileEntry]
    def __init__(self, schema_version: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ModelEntry, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[FileEntry, _Mapping]]] = ...) -> None: ...
