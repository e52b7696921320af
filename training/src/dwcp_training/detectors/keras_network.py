"""The Keras network of the LSTM autoencoder: building, training, saving (S1-7, S1-11); and what all networks share."""

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dwcp_training.detectors.base import Progress
from dwcp_training.detectors.libraries import require_keras
from dwcp_training.profiles import LstmAutoencoderDefaults

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # oneDNN sums in another order from run to run

STEPS_AT_ONCE = 50
"""Batches between two returns to Python."""

LONGEST_UNROLLED = 32
"""Windows up to this length are trained unrolled: three to four times faster than a loop per step, same arithmetic."""

_SHARED_ID = re.compile(rb'("shared_object_id": )(\d+)')


def build(settings: LstmAutoencoderDefaults, features: int, *, unroll: bool, dtype: str = "float32") -> Any:
    """The uncompiled network, functional because tf2onnx cannot convert a sequential one.

    Layers (LA1): LSTM `hidden_units`, dropout, LSTM `encoding_dim`, repeat, LSTM `encoding_dim`, dropout, LSTM
    `hidden_units`, dense.
    """
    import keras
    from keras import layers

    def lstm(units: int, name: str, *, sequences: bool) -> Any:
        return layers.LSTM(units, return_sequences=sequences, unroll=unroll, dtype=dtype, name=name)

    window = keras.Input((settings.window_size, features), dtype=dtype, name="scaled")
    x = lstm(settings.hidden_units, "encoder_1", sequences=True)(window)
    x = layers.Dropout(settings.dropout, dtype=dtype, name="encoder_dropout")(x)
    x = lstm(settings.encoding_dim, "encoder_2", sequences=False)(x)
    x = layers.RepeatVector(settings.window_size, dtype=dtype, name="repeat")(x)
    x = lstm(settings.encoding_dim, "decoder_1", sequences=True)(x)
    x = layers.Dropout(settings.dropout, dtype=dtype, name="decoder_dropout")(x)
    x = lstm(settings.hidden_units, "decoder_2", sequences=True)(x)
    dense = layers.TimeDistributed(layers.Dense(features, dtype=dtype), dtype=dtype, name="dense")(x)
    return keras.Model(window, dense, name="lstm_autoencoder")


def train(
    fitted: np.ndarray,
    held_out: np.ndarray,
    settings: LstmAutoencoderDefaults,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> tuple[Any, dict[str, list[float]]]:
    """Trains on scaled windows, float32 `[n, timesteps, features]`, with early stopping on the held-out ones.

    Early stopping restores the weights of the best epoch; the learning rate falls when the loss stays level.

    Returns:
        The network with the best weights, not unrolled, and the curves `loss`, `val_loss`, `learning_rate`.

    Raises:
        MissingLibraryError: when Keras or TensorFlow is not installed.
    """
    keras = require_keras("lstm_autoencoder")
    keras.utils.set_random_seed(settings.seed)
    network = build(settings, fitted.shape[-1], unroll=settings.window_size <= LONGEST_UNROLLED)
    network.compile(
        optimizer=keras.optimizers.get(
            {
                "class_name": settings.optimizer,
                "config": {"learning_rate": settings.learning_rate},
            }
        ),
        loss=settings.loss,
        steps_per_execution=steps_at_once(len(fitted), settings.batch_size),
    )
    history = network.fit(
        fitted,
        fitted,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validation_data=(held_out, held_out),
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=settings.early_stopping_patience, restore_best_weights=True
            ),
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss",
                factor=settings.learning_rate_factor,
                patience=settings.learning_rate_patience,
                min_lr=settings.learning_rate_floor,
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=on_epoch),
        ],
    )
    best = build(settings, fitted.shape[-1], unroll=False)
    best.set_weights(network.get_weights())
    curves = {name: [float(value) for value in values] for name, values in history.history.items()}
    return best, curves


def reconstruct_float64(network: Any, settings: LstmAutoencoderDefaults, scaled: np.ndarray) -> np.ndarray:
    """Keras' own reconstruction in float64 on the same weights: `[n, timesteps, features]` in and out."""
    return outputs(build(settings, scaled.shape[-1], unroll=False, dtype="float64"), network, scaled)


def saved(network: Any) -> dict[str, bytes]:
    """The network as `lstm_autoencoder.h5` and `lstm_autoencoder.keras`: equal networks give equal bytes in both."""
    with tempfile.TemporaryDirectory() as folder:
        h5 = Path(folder) / "network.h5"
        network.save(h5)
        return {"lstm_autoencoder.h5": h5.read_bytes(), "lstm_autoencoder.keras": archived(network)}


def shown_epochs(progress: Progress, most: int) -> Callable[[int, dict[str, float]], None]:
    """What shows the losses of an epoch, of at most so many, when it ends."""

    def on_epoch(epoch: int, logs: dict[str, float]) -> None:
        progress(epoch + 1, most, f"loss {logs['loss']:.5f}, held out {logs['val_loss']:.5f}")

    return on_epoch


def epochs_said(history: dict[str, list[float]], most: int) -> str:
    """How many epochs of so many there were, and which was the best, in words."""
    best = int(np.argmin(history["val_loss"]))
    return f"{len(history['loss'])} of {most}, best was {best + 1}: held-out loss {history['val_loss'][best]:.6f}"


def steps_at_once(items: int, batch_size: int) -> int:
    """Batches that Keras trains between two returns to Python: at most those of an epoch."""
    return max(1, min(STEPS_AT_ONCE, items // batch_size))


def outputs(wide: Any, network: Any, scaled: np.ndarray) -> np.ndarray:
    """What `wide`, the same network in another precision, answers to scaled items `[n, ...]` with these weights."""
    wide.set_weights(network.get_weights())
    return np.concatenate([np.asarray(wide(scaled[i : i + 4096], training=False)) for i in range(0, len(scaled), 4096)])


def archived(network: Any) -> bytes:
    """The network as a `.keras` archive: equal networks give equal bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.keras"
        network.save(file)
        return timeless(file.read_bytes())


def timeless(archive: bytes) -> bytes:
    """A `.keras` archive with all dates set to one, and objects numbered in order instead of by their address."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, "w") as target:
        for name in sorted(source.namelist()):
            data = source.read(name)
            if name == "metadata.json":
                data = json.dumps({**json.loads(data), "date_saved": "1980-01-01@00:00:00"}).encode()
            elif name == "config.json":
                data = _numbered(data)
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def _numbered(config: bytes) -> bytes:
    """A `config.json` whose shared objects are numbered in the order in which they appear."""
    numbers: dict[bytes, int] = {}
    return _SHARED_ID.sub(lambda found: found[1] + b"%d" % numbers.setdefault(found[2], len(numbers)), config)
