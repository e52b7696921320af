"""Trees of isolation forests as plain arrays, which is how they travel, and forests of pooled trees.

A pickle from a client could run a program at the server. Arrays cannot, and are checked before they become trees.
"""

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.tree import ExtraTreeRegressor

from dwcp_training.detectors.base import Floats
from dwcp_training.export.forest import average_path_length
from dwcp_training.federated.errors import FederatedError

COLUMNS = ("left", "right", "feature", "threshold", "rows")
"""Of a node: its children (-1 for a leaf), the feature and the threshold of its split, the rows it was grown on."""

MOST_NODES = 1 << 20


def grown(rows: Floats, trees: int, max_samples: int, bootstrap: bool, seed: int) -> list[Floats]:
    """Isolation trees grown on scaled rows `[n, features]`, each float64 `[nodes, 5]`, columns as of COLUMNS.

    Raises:
        FederatedError: there are fewer rows than a tree takes.
    """
    if len(rows) < max_samples:
        raise FederatedError(
            "rows", f"{len(rows):,} are fewer than the {max_samples:,} that a tree is grown on.", "Use more data."
        )
    forest = IsolationForest(n_estimators=trees, max_samples=max_samples, bootstrap=bootstrap, random_state=seed)
    forest.fit(rows)
    return [
        np.column_stack([
            tree.tree_.children_left, tree.tree_.children_right, tree.tree_.feature, tree.tree_.threshold,
            tree.tree_.n_node_samples,
        ]).astype(np.float64)
        for tree in forest.estimators_
    ]  # fmt: skip


def check_tree(tree: Floats, features: int, max_samples: int) -> None:
    """Refuses arrays that are no tree grown on `max_samples` rows, as a lying client may send.

    Raises:
        FederatedError: says what is wrong.
    """

    def refuse(what: str) -> FederatedError:
        return FederatedError("tree", what, "The client's trees are left out.")

    if tree.ndim != 2 or tree.shape[1] != len(COLUMNS) or not 1 <= len(tree) <= MOST_NODES:
        raise refuse(f"an array {tree.shape} is no tree.")
    if not np.isfinite(tree).all():
        raise refuse("it holds a number that is not finite.")
    whole = tree[:, [0, 1, 2, 4]]
    if (whole != np.rint(whole)).any():
        raise refuse("a child, a feature or a number of rows is no whole number.")
    left, right, feature, _, rows = tree.T
    inner = left >= 0
    if ((right >= 0) != inner).any() or (feature[inner] < 0).any() or (feature[inner] >= features).any():
        raise refuse("a split has one child, or a feature that is not there.")
    children = np.concatenate([left[inner], right[inner]])
    parents = np.tile(np.flatnonzero(inner), 2)
    if (children <= parents).any() or sorted(children.tolist()) != list(range(1, len(tree))):
        raise refuse("its nodes are no tree, each but the first with one parent before it.")
    index = left[inner].astype(int), right[inner].astype(int)
    if (rows < 1).any() or (rows[index[0]] + rows[index[1]] != rows[inner]).any():
        raise refuse("the rows of a node are not those of its children.")
    # With bootstrap a tree sees some rows several times and others never, so fewer different ones.
    if rows[0] > max_samples:
        raise refuse(f"it was grown on {rows[0]:g} rows, not on {max_samples}.")


def pooled(trees: list[Floats], features: int, max_samples: int, seed: int) -> IsolationForest:
    """A forest of trees that were grown apart, as scikit-learn would have it: it scores, pickles and exports.

    Args:
        trees: as of `grown`, checked.
        features: how many there are.
        max_samples: rows that each tree was grown on: the unit of path lengths (IF3).
    """
    two = np.array([[0.0] * features, [1.0] * features])
    like = ExtraTreeRegressor(max_features=1, splitter="random").fit(two, [0.0, 1.0])
    forest = IsolationForest(n_estimators=len(trees), max_samples=max_samples, random_state=seed)
    rows = np.random.default_rng(seed).standard_normal((max(2, max_samples), features))
    forest.fit(rows)  # sets what else a fitted forest has; its trees are replaced
    forest.estimators_ = [_estimator(like, tree, features) for tree in trees]
    forest.estimators_features_ = [np.arange(features)] * len(trees)
    forest._max_samples = forest.max_samples_ = max_samples
    forest._average_path_length_per_tree, forest._decision_path_lengths = _path_lengths(trees)
    return forest


def _estimator(like: ExtraTreeRegressor, tree: Floats, features: int) -> ExtraTreeRegressor:
    """A scikit-learn tree of the nodes of `tree`."""
    made = ExtraTreeRegressor(max_features=1, splitter="random")
    for name, value in vars(like).items():
        setattr(made, name, value)
    state = like.tree_.__getstate__()
    nodes = np.zeros(len(tree), state["nodes"].dtype)
    inner = tree[:, 0] >= 0
    nodes["left_child"], nodes["right_child"] = tree[:, 0], tree[:, 1]
    nodes["feature"], nodes["threshold"] = np.where(inner, tree[:, 2], -2), np.where(inner, tree[:, 3], -2.0)
    nodes["n_node_samples"], nodes["weighted_n_node_samples"] = tree[:, 4], tree[:, 4]
    depth = _depths(tree)
    blank = type(like.tree_)(features, np.array([1], np.intp), 1)
    blank.__setstate__(
        {"max_depth": int(depth.max()), "node_count": len(tree), "nodes": nodes, "values": np.zeros((len(tree), 1, 1))}
    )
    made.tree_ = blank
    return made


def _depths(tree: Floats) -> np.ndarray:
    depth = np.zeros(len(tree), np.int64)
    for node in np.flatnonzero(tree[:, 0] >= 0):  # children come after their parent
        depth[tree[node, :2].astype(int)] = depth[node] + 1
    return depth


def _path_lengths(trees: list[Floats]) -> tuple[tuple[Floats, ...], tuple[np.ndarray, ...]]:
    """What scikit-learn keeps beside a tree to score: the path length that a node's rows stand for, and its depth."""
    lengths = tuple(np.array([average_path_length(int(rows)) for rows in tree[:, 4]]) for tree in trees)
    return lengths, tuple(_depths(tree) + 1 for tree in trees)
