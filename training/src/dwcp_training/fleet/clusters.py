"""Clusters of similar links."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def clustered(summaries: Mapping[str, tuple[float, ...]], count: int, seed: int) -> dict[str, str]:
    """Series to the name of its cluster, by k-means on robust summaries.

    Medians and interquartile ranges are compressed by `arcsinh`, so that a link of 10,000 Mbps does not decide alone,
    and scaled by their own median and interquartile range over all series. Clusters are numbered by their first series.

    Args:
        summaries: name to the numbers of `tasks.Summary`, all as many.
        count: of clusters; fewer where there are fewer different series.
        seed: of the first centres.
    """
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import RobustScaler

    names = list(summaries)
    if not names:
        return {}
    points = RobustScaler().fit_transform(np.arcsinh(np.array([summaries[name] for name in names])))
    most = min(count, len(np.unique(points, axis=0)))
    labels = KMeans(most, n_init=10, random_state=seed).fit_predict(points).tolist()
    order = {label: number for number, label in enumerate(dict.fromkeys(labels), 1)}
    width = len(str(most))
    return {name: f"cluster-{order[label]:0{width}}" for name, label in zip(names, labels, strict=True)}
