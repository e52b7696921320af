"""The Keras network of the dense autoencoder: building, training, saving (S2-3, S2-4)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dwcp_training.detectors.keras_network import archived, outputs, steps_at_once
from dwcp_training.detectors.libraries import require_keras
from dwcp_training.export.dense import DenseLayer, DenseWeights
from dwcp_training.profiles import DenseAutoencoderDefaults


def hidden_units(settings: DenseAutoencoderDefaults) -> list[int]:
    """Widths of the hidden layers: the encoder, the bottleneck, the encoder backwards."""
    return [*settings.encoder_units, settings.bottleneck, *reversed(settings.encoder_units)]


def build(settings: DenseAutoencoderDefaults, features: int, *, decay: bool = False, dtype: str = "float32") -> Any:
    """The uncompiled network, functional because tf2onnx cannot convert a sequential one.

    Layers (DA1): one for each of `hidden_units`, with activation, and dropout behind each but the bottleneck; the
    output layer.

    Args:
        decay: whether a penalty makes the weights decay in training: `weight_decay / 2 * sum(w^2)` over kernels and
            biases has the gradient `weight_decay * w`, which is what PyTorch's optimizers add for a setting of that
            name. AdamW decays by itself.
    """
    import keras
    from keras import layers

    penalized = decay and settings.weight_decay and settings.optimizer != "adamw"
    penalty = keras.regularizers.L2(settings.weight_decay / 2) if penalized else None

    def dense(units: int, name: str, activation: str | None) -> Any:
        return layers.Dense(
            units, activation, kernel_regularizer=penalty, bias_regularizer=penalty, dtype=dtype, name=name
        )

    sample = keras.Input((features,), dtype=dtype, name="scaled")
    x = sample
    units = hidden_units(settings)
    for i, width in enumerate(units, start=1):
        x = dense(width, f"layer_{i}", settings.activation)(x)
        if i != len(settings.encoder_units) + 1:
            x = layers.Dropout(settings.dropout, dtype=dtype, name=f"dropout_{i}")(x)
    x = dense(features, f"layer_{len(units) + 1}", None)(x)
    return keras.Model(sample, x, name="dense_autoencoder")


def train(
    fitted: np.ndarray,
    held_out: np.ndarray,
    settings: DenseAutoencoderDefaults,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> tuple[Any, dict[str, list[float]]]:
    """Trains on scaled rows, float32 `[n, features]`, with early stopping on the held-out ones.

    Early stopping restores the weights of the best epoch, also when the last epoch is reached without stopping. It
    looks at the reconstruction error alone: the penalty of weight decay is not in the curves.

    Returns:
        The network with the best weights and the curves `loss` and `val_loss`.

    Raises:
        MissingLibraryError: when Keras or TensorFlow is not installed.
    """
    keras = require_keras("dense_autoencoder")
    keras.utils.set_random_seed(settings.seed)
    network = build(settings, fitted.shape[-1], decay=True)
    config = {"learning_rate": settings.learning_rate}
    if settings.optimizer == "adamw":
        config["weight_decay"] = settings.weight_decay
    network.compile(
        optimizer=keras.optimizers.get({"class_name": settings.optimizer, "config": config}),
        loss=settings.loss,
        metrics=[settings.loss],
        steps_per_execution=steps_at_once(len(fitted), settings.batch_size),
    )
    error = settings.loss  # the metric, without the penalty that `loss` has

    def report(epoch: int, logs: dict[str, float]) -> None:
        on_epoch(epoch, {"loss": float(logs[error]), "val_loss": float(logs[f"val_{error}"])})

    history = network.fit(
        fitted,
        fitted,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validation_data=(held_out, held_out),
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(
                monitor=f"val_{error}",
                mode="min",
                patience=settings.early_stopping_patience,
                restore_best_weights=True,
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=report),
        ],
    ).history
    best = build(settings, fitted.shape[-1])
    best.set_weights(network.get_weights())
    return best, {
        "loss": [float(value) for value in history[error]],
        "val_loss": [float(value) for value in history[f"val_{error}"]],
    }


def weights_of(network: Any, activation: str) -> DenseWeights:
    """The weights of a network that `build` made."""
    arrays = [np.asarray(array, np.float32) for array in network.get_weights()]
    return DenseWeights(tuple(map(DenseLayer, arrays[::2], arrays[1::2])), activation)


def reconstruct_float64(network: Any, settings: DenseAutoencoderDefaults, scaled: np.ndarray) -> np.ndarray:
    """Keras' own reconstruction in float64 on the same weights: `[n, features]` in and out."""
    return outputs(build(settings, scaled.shape[-1], dtype="float64"), network, scaled)


def saved(network: Any) -> dict[str, bytes]:
    """The network as `dense_autoencoder.keras`: equal networks give equal bytes."""
    return {"dense_autoencoder.keras": archived(network)}
