"""From covariances to what a Mahalanobis distance is computed with (rules MD2, MD4, MD5)."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from sklearn.covariance import empirical_covariance

from dwcp_training.detectors.base import Floats


@dataclass(frozen=True)
class Distance:
    """A fitted distance of `F` features and windows of `T` samples; scaled units throughout.

    Attributes:
        row_factor: `R`, upper triangular, float64 `[F, F]`.
        window_factor: `W`, upper triangular, float64 `[T F, T F]`; None for `T = 1`.
        regression: `E`, float64 `[T F, F]`.
        precision: float64 `[F]`, above 0.
    """

    row_factor: Floats
    window_factor: Floats | None
    regression: Floats
    precision: Floats

    def squared(self, flat: Floats) -> Floats:
        """The squared distance of MD2 for scaled windows `[n, T F]`; float64 `[n]`."""
        width = len(self.row_factor)
        row = ((flat[:, -width:] @ self.row_factor) ** 2).sum(axis=1) / width
        if self.window_factor is None:
            return row
        return (row + ((flat @ self.window_factor) ** 2).sum(axis=1) / flat.shape[1]) / 2

    def expected(self, flat: Floats) -> Floats:
        """`m` of MD4 for scaled windows `[n, T F]`; float64 `[n, F]`."""
        return flat @ self.regression


def covariance(rows: Floats) -> Floats:
    """Covariance of scaled rows `[n, columns]` about the scaler's means, which are 0; float64 `[columns, columns]`."""
    return empirical_covariance(rows, assume_centered=True)


def inverse_factor(of: Floats, ridge: float) -> Floats:
    """The upper triangular `R` with `R R' = inv(of + ridge I)`, float64 like `of`.

    With the Cholesky factor `L` of `of + ridge I` the inverse is `L^-T L^-1`, so `R = L^-T`; nothing is inverted but a
    triangle, which keeps the precision of `L`.
    """
    identity = np.eye(len(of))
    lower = cholesky(of + ridge * identity, lower=True)
    return np.triu(solve_triangular(lower, identity, lower=True, trans="T"))


def distance_of(row_covariance: Floats, window_covariance: Floats | None, ridge: float) -> Distance:
    """What MD2, MD4 and MD5 need, from covariances of scaled rows `[F, F]` and windows `[T F, T F]`.

    The squared distance is a quadratic form `w Q w'`. As a function of value `j` of the last sample alone it is
    `Q[j, j] (z - m)^2` and a constant, with `m = -sum over i != j of w[i] Q[i, j] / Q[j, j]`: where its slope is 0. So
    `m` is what makes the distance smallest, which is the mean of a normal distribution given all other values.
    """
    width = len(row_covariance)
    row_factor = inverse_factor(row_covariance, ridge)
    form, window_factor = row_factor @ row_factor.T / width, None
    if window_covariance is not None:
        window_factor = inverse_factor(window_covariance, ridge)
        whole = window_factor @ window_factor.T / len(window_covariance)
        whole[-width:, -width:] += form
        form = whole / 2
    precision = np.diagonal(form)[-width:].copy()
    regression = -form[:, -width:] / precision
    np.fill_diagonal(regression[-width:], 0.0)
    return Distance(row_factor, window_factor, regression, precision)
