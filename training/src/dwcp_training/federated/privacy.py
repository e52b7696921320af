"""The privacy loss of rounds of noisy averages."""

import math

from dwcp_training.federated.plan import Privacy


def epsilon(privacy: Privacy, rounds: int) -> float:
    """Epsilon at the plan's delta after so many rounds in which every client took part, for the weights alone.

    A round is a Gaussian mechanism of the plan's noise multiplier `z`: `1 / (2 z^2)` of zero-concentrated differential
    privacy, which adds up, and `rho` of it is `rho + 2 sqrt(rho ln(1 / delta))`. Source: Bun, Steinke: Concentrated
    differential privacy, 2016, propositions 1.3, 1.6 and lemma 1.7.
    """
    rho = rounds / (2 * privacy.noise_multiplier**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / privacy.delta))
