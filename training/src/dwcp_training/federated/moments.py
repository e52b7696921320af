"""Count, mean and variance of rows that are in several places, as if they were in one."""

from dataclasses import dataclass

import numpy as np

from dwcp_training.detectors.base import Floats


@dataclass(frozen=True)
class Moments:
    """Of some rows: how many, their mean `[features]`, and the sums of squared deviations from it, `[features]`."""

    count: float
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, rows: Floats) -> "Moments":
        """Of rows, float64 `[n, features]`, n at least 1."""
        mean = rows.mean(axis=0)
        return cls(float(len(rows)), mean, ((rows - mean) ** 2).sum(axis=0))

    def merged(self, other: "Moments") -> "Moments":
        """Of the rows of both.

        Formula: Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979,
        equation 2.1: `S = S_a + S_b + d^2 n_a n_b / n`.
        """
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
        )

    def around(self, mean: Floats) -> Floats:
        """Sums of squared deviations from another mean, `[features]`: `S + n (mean - own)^2`.

        Summed over all sites with the mean of all rows this is Chan's `S` of all rows, and only sums are needed for it.
        """
        return self.squares + self.count * (self.mean - mean) ** 2

    @property
    def scale(self) -> Floats:
        """Standard deviations as StandardScaler has them: of `n`, not `n - 1`; 1 where all rows are alike."""
        variance = self.squares / self.count
        # scikit-learn's rule for a variance that is nothing but rounding error.
        epsilon = np.finfo(np.float64).eps
        none = variance <= self.count * epsilon * variance + (self.count * self.mean * epsilon) ** 2
        return np.where(none, 1.0, np.sqrt(np.maximum(variance, 0.0)))
