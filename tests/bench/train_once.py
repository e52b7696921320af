"""Trains the LSTM autoencoder once, ours or as a plain Keras fit, and prints seconds and held-out loss as JSON.

python -m tests.bench.train_once ours|plain EPOCHS
"""

import json
import sys
import time

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

from dwcp_training.data import lstm_series, time_split, windows
from dwcp_training.detectors import keras_network
from dwcp_training.detectors.base import Floats, clamp_scaled
from dwcp_training.profiles import LstmAutoencoderDefaults, load_profile


def plain(fitted: Floats, held_out: Floats, settings: LstmAutoencoderDefaults) -> dict[str, list[float]]:
    """What one writes without looking for speed: the same network, a loop per step, `fit` with the same callbacks."""
    keras.utils.set_random_seed(settings.seed)
    network = keras_network.build(settings, fitted.shape[-1], unroll=False)
    network.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), loss=settings.loss)
    callbacks = [
        keras.callbacks.EarlyStopping(patience=settings.early_stopping_patience, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(
            factor=settings.learning_rate_factor,
            patience=settings.learning_rate_patience,
            min_lr=settings.learning_rate_floor,
        ),
    ]
    return network.fit(
        fitted,
        fitted,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validation_data=(held_out, held_out),
        verbose=0,
        callbacks=callbacks,
    ).history


def main() -> None:
    """Trains at the seed's defaults on the synthetic series."""
    kind, epochs = sys.argv[1], int(sys.argv[2])
    settings = load_profile("dwcp").detectors.lstm_autoencoder.model_copy(update={"epochs": epochs})
    parts = time_split(lstm_series(), settings.validation_split, gap=settings.window_size)
    scaler = StandardScaler().fit(parts[0].values)
    fitted, held_out = (
        clamp_scaled(
            windows(part.values, part.segments, settings.window_size), scaler.mean_, scaler.scale_
        ).astype(np.float32)
        for part in parts
    )  # fmt: skip
    start = time.perf_counter()
    if kind == "ours":
        _, curves = keras_network.train(fitted, held_out, settings, lambda *_: None)
    else:
        curves = plain(fitted, held_out, settings)
    print(json.dumps({"seconds": time.perf_counter() - start, "val_loss": float(min(curves["val_loss"]))}))


if __name__ == "__main__":
    main()
