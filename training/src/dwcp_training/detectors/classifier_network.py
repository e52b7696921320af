"""The Keras network of the LSTM classifier: building, training, saving (S4-4)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dwcp_training.detectors.keras_network import LONGEST_UNROLLED, archived, outputs, steps_at_once
from dwcp_training.detectors.libraries import require_keras
from dwcp_training.profiles import LstmClassifierDefaults


def build(settings: LstmClassifierDefaults, features: int, *, unroll: bool, dtype: str = "float32") -> Any:
    """The uncompiled network, functional because tf2onnx cannot convert a sequential one.

    Layers (LC1): two LSTM layers and a dense one with the `units` of the settings, dropout behind each LSTM layer, one
    output unit.
    """
    import keras
    from keras import layers

    def lstm(units: int, name: str, *, sequences: bool) -> Any:
        return layers.LSTM(units, return_sequences=sequences, unroll=unroll, dtype=dtype, name=name)

    first, second, dense = settings.units
    window = keras.Input((settings.window_size, features), dtype=dtype, name="scaled")
    x = lstm(first, "lstm_1", sequences=True)(window)
    x = layers.Dropout(settings.dropout, dtype=dtype, name="dropout_1")(x)
    x = lstm(second, "lstm_2", sequences=False)(x)
    x = layers.Dropout(settings.dropout, dtype=dtype, name="dropout_2")(x)
    x = layers.Dense(dense, "relu", dtype=dtype, name="dense_1")(x)
    return keras.Model(window, layers.Dense(1, "sigmoid", dtype=dtype, name="output")(x), name="lstm_classifier")


def train(
    fitted: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    settings: LstmClassifierDefaults,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> tuple[Any, dict[str, list[float]]]:
    """Trains on scaled windows, float32 `[n, timesteps, features]`, and their labels, bool `[n]`.

    Early stopping looks at the cross-entropy of the held-out windows, with the class weights of training, and restores
    the weights of the best epoch, also when the last epoch is reached without stopping.

    Returns:
        The network with the best weights, not unrolled, and the curves `loss` and `val_loss`.

    Raises:
        MissingLibraryError: when Keras or TensorFlow is not installed.
    """
    keras = require_keras("lstm_classifier")
    keras.utils.set_random_seed(settings.seed)
    network = build(settings, fitted[0].shape[-1], unroll=settings.window_size <= LONGEST_UNROLLED)
    network.compile(
        optimizer=keras.optimizers.get(
            {"class_name": settings.optimizer, "config": {"learning_rate": settings.learning_rate}}
        ),
        loss="binary_crossentropy",
        steps_per_execution=steps_at_once(len(fitted[0]), settings.batch_size),
    )
    weights = class_weights(fitted[1], settings)
    history = network.fit(
        fitted[0],
        fitted[1].astype(np.float32),
        sample_weight=weights[fitted[1].astype(int)],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validation_data=(held_out[0], held_out[1].astype(np.float32), weights[held_out[1].astype(int)]),
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(
                monitor="val_loss", mode="min", patience=settings.early_stopping_patience, restore_best_weights=True
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=on_epoch),
        ],
    ).history
    best = build(settings, fitted[0].shape[-1], unroll=False)
    best.set_weights(network.get_weights())
    return best, {name: [float(value) for value in history[name]] for name in ("loss", "val_loss")}


def class_weights(labels: np.ndarray, settings: LstmClassifierDefaults) -> np.ndarray:
    """What a normal and an anomalous window count for in the loss, float32 `[2]`; 1 on average over `labels`.

    Balanced, both classes count for the same in all, however rare one of them is.
    """
    if settings.class_weights == "none":
        return np.ones(2, np.float32)
    counts = np.bincount(labels.astype(int), minlength=2)
    return (len(labels) / (2 * counts)).astype(np.float32)


def scores_float64(network: Any, settings: LstmClassifierDefaults, scaled: np.ndarray) -> np.ndarray:
    """Keras' own scores in float64 on the same weights: `[n]` for scaled windows `[n, timesteps, features]`."""
    return outputs(build(settings, scaled.shape[-1], unroll=False, dtype="float64"), network, scaled)[:, 0]


def saved(network: Any) -> dict[str, bytes]:
    """The network as `lstm_classifier.keras`: equal networks give equal bytes."""
    return {"lstm_classifier.keras": archived(network)}
