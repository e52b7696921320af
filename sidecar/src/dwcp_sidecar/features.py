"""Checks of samples against a feature schema (rules F1 to F4, W1 to W4, E2)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.limits import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_SAMPLES


def check_samples(samples: Sequence[Sequence[float]], names: Sequence[str], timesteps: int) -> np.ndarray:
    """Checks a request's samples and returns the part that is scored.

    Args:
        samples: oldest first, one list of raw values per sample.
        names: feature names in schema order.
        timesteps: length of the model's window; 1 for a detector that scores single samples.

    Returns:
        float64 `[timesteps, features]`: the last `timesteps` samples.

    Raises:
        ContractError: the first fault in the order of E2.
    """
    if len(samples) == 0:
        raise ContractError("NO_SAMPLES", "samples", "no sample given; send at least one")
    if len(samples) > MAX_SAMPLES:
        raise ContractError(
            "TOO_MANY_SAMPLES", "samples", f"{len(samples)} samples given; at most {MAX_SAMPLES} fit in one request"
        )
    width = len(names)
    lists = [list(sample) for sample in samples]
    # In plain Python: numpy takes longer for the few numbers of a request.
    if not all(len(values) == width and all(map(math.isfinite, values)) for values in lists):
        _raise_first_fault(lists, names)
    if len(samples) < timesteps:
        raise ContractError(
            "WINDOW_TOO_SHORT", "samples", f"{len(samples)} samples given; the model's window is {timesteps} samples"
        )
    return np.array(lists[-timesteps:], np.float64)


def _raise_first_fault(samples: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    """Raises the first fault of samples that have one, sample by sample (E2)."""
    for i, sample in enumerate(samples):
        if len(sample) != len(names):
            raise ContractError(
                "WRONG_WIDTH",
                f"samples[{i}]",
                f"{len(sample)} values given; the schema has {len(names)}: {', '.join(names)}",
            )
        for name, value in zip(names, sample, strict=True):
            if not math.isfinite(value):
                raise _not_finite("samples", i, name, value)


def check_batch(rows: Any, names: Sequence[str], timesteps: int, *, series: bool = False) -> np.ndarray:
    """Checks a batch and returns its items.

    Args:
        rows: numbers `[n, features]`, or `[items, timesteps, features]`.
        names: feature names in schema order.
        timesteps: length of the model's window; 1 for a detector that scores single samples.
        series: whether the rows are one series of which every full window is an item.

    Returns:
        float64 `[items, timesteps, features]`.

    Raises:
        ContractError: the first fault in the order of E2, with fields that start with `rows`.
    """
    width = len(names)
    try:
        values = np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:  # rows of different lengths, or no numbers
        raise ContractError("INVALID_REQUEST", "rows", f"the rows are no table of numbers: {error}") from None
    if values.size == 0:
        raise ContractError("NO_SAMPLES", "rows", "no row given; send at least one")
    if values.shape[-1:] != (width,) or values.ndim not in (2, 3):
        raise ContractError(
            "WRONG_WIDTH", "rows", f"rows of shape {list(values.shape)}; the schema has {width}: {', '.join(names)}"
        )
    if values.ndim == 3 and values.shape[1] != timesteps:
        # Joined end to end they might still be whole windows, but other ones.
        raise ContractError(
            "INVALID_REQUEST", "rows", f"windows of {values.shape[1]} rows; the model's window is {timesteps} rows"
        )
    values = values.reshape(-1, width)
    items = len(values) - timesteps + 1 if series else len(values) // timesteps
    if items > MAX_BATCH_ITEMS or values.nbytes > MAX_BATCH_BYTES:
        raise ContractError(
            "BATCH_TOO_LARGE",
            "rows",
            f"{items} items in {values.nbytes} bytes; at most {MAX_BATCH_ITEMS} in {MAX_BATCH_BYTES} bytes fit",
        )
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise _not_finite("rows", row, names[column], values[row, column])
    if items < 1 or (not series and len(values) % timesteps):
        raise ContractError(
            "WINDOW_TOO_SHORT", "rows", f"{len(values)} rows given; the model's window is {timesteps} rows"
        )
    if series:
        windows = np.lib.stride_tricks.sliding_window_view(values, timesteps, axis=0)
        return np.ascontiguousarray(windows.transpose(0, 2, 1))
    return values.reshape(items, timesteps, width)


def _not_finite(where: str, row: int, name: str, value: float) -> ContractError:
    return ContractError(
        "NOT_FINITE", f"{where}[{row}].{name}", f"{name} is {value}; send a finite number or leave the sample out"
    )
