"""The table of mutations: what is damaged, and the refusals that are right for it."""

from collections.abc import Callable, Iterator

from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.mutation import classifier, dense, drift, ensemble, mahalanobis, neighbors, scorers, svm
from tests.mutation.mutation import GOLDEN, GRAPH, Makers, Mutation, audited, contradiction, found
from tests.mutation.scorers import FOREST, LSTM
from tests.mutation.set_copy import MANIFEST, METADATA, SetCopy


def _forest() -> Iterator[Mutation]:
    make = Makers(FOREST, "forest")
    graph, everywhere = make.graph, make.everywhere
    yield graph("split/root", scorers.root_split, found(FOREST))
    yield everywhere("split/float32_step", scorers.split_one_float32_step, found(FOREST))
    yield graph("split/inverted", scorers.inverted_comparison, audited(FOREST))
    yield graph("features/swapped", scorers.swap_feature_ids, found(FOREST))
    yield graph("features/one_root", scorers.another_feature_at_one_root, found(FOREST))
    yield graph("leaves/without_c2", scorers.drop_c2, found(FOREST))
    yield graph("leaves/grid_step", scorers.one_leaf_by_one_grid_step, found(FOREST))
    yield graph("leaves/off_grid", scorers.leaf_off_the_grid, audited(FOREST), False)
    yield everywhere("float32_scaling", scorers.scale_in_float32(FOREST), found(FOREST, audit_may=True))
    yield graph("sign/graph", scorers.negate_rate, audited(FOREST))
    yield everywhere("sign/everywhere", scorers.negate_rate_everywhere, contradiction(FOREST))
    yield everywhere("threshold/depth", scorers.depth_threshold_everywhere, contradiction(FOREST))
    yield everywhere("threshold/score", scorers.forest_threshold_without_depth, contradiction(FOREST), False)
    yield everywhere("threshold/everywhere", scorers.forest_threshold_everywhere, found(FOREST))
    yield graph("means/graph", scorers.swap_in_scaler(), audited(FOREST))
    yield everywhere("means/everywhere", scorers.swap_in_scaler_everywhere(FOREST), found(FOREST))
    yield graph("reference_scaled", scorers.another_reference_value, audited(FOREST))


def _lstm() -> Iterator[Mutation]:
    make = Makers(LSTM, "lstm")
    graph, everywhere = make.graph, make.everywhere
    yield everywhere("gates/forget_output", scorers.swap_gates("encoder_1", "forget", "output"), found(LSTM))
    yield everywhere("gates/kernel", scorers.swap_gates("decoder_1", "input", "forget", ("kernel",)), found(LSTM))
    yield everywhere("gates/keras", scorers.swap_gates("decoder_2", "output", "candidate"), found(LSTM))
    yield everywhere("weight/visible", scorers.change_weight("encoder_1.kernel", 0.01), found(LSTM))
    yield everywhere("weight/float32_step", scorers.change_weight("decoder_2.recurrent", None), found(LSTM))
    yield everywhere("weight/dense_bias", scorers.change_weight("dense.bias", None), found(LSTM))
    yield everywhere("float32_scaling", scorers.scale_in_float32(LSTM), found(LSTM, audit_may=True))
    yield graph("threshold/graph", scorers.threshold_in_graph, audited(LSTM))
    yield everywhere("threshold/everywhere", scorers.threshold_everywhere(LSTM), found(LSTM))
    yield graph("means/graph", scorers.swap_in_scaler(), audited(LSTM))
    yield everywhere("means/everywhere", scorers.swap_in_scaler_everywhere(LSTM), found(LSTM))
    yield Mutation("graphs/swapped", FOREST, scorers.swap_graphs, audited(FOREST))


def _json(
    name: str, detector: str, file: str, change: Callable, *refusals: tuple[str, str], answers: bool = False
) -> Mutation:
    return Mutation(name, detector, lambda copy: copy.edit_json(file, change), refusals, answers=answers)


def _metadata() -> Iterator[Mutation]:
    for detector, file in METADATA.items():
        wrong = {FOREST: contradiction, ENSEMBLE: found}.get(detector, audited)
        yield _json(f"metadata/{detector}/threshold", detector, file,
                    lambda d: d.update(threshold=scorers.next_midpoint(d["threshold"])), *wrong(detector))  # fmt: skip
        yield _json(f"metadata/{detector}/threshold_no_midpoint", detector, file,
                    lambda d: d.update(threshold=d["threshold"] * (1 + 1e-9)), ("METADATA_INVALID", file))  # fmt: skip
        yield _json(f"metadata/{detector}/names", detector, file, _swap_names, ("METADATA_INVALID", file))
        by_graph = contradiction if detector == ENSEMBLE else audited  # its members have other names then (EN1)
        yield _json(f"metadata/{detector}/names_and_schema", detector, file, _swap_schema, *by_graph(detector))
        yield _json(
            f"metadata/{detector}/no_class", detector, file, lambda d: d.pop("parity_class"), ("METADATA_INVALID", file)
        )
    for detector in GRAPH:
        file = METADATA[detector]
        yield _json(f"metadata/{detector}/means", detector, file, _swap_json_means, *audited(detector))
        # A member whose features are others than those of its ensemble does not even get to its golden vectors (EN1).
        wrong = contradiction(ENSEMBLE) if detector == classifier.CLASSIFIER else found(detector)
        yield Mutation(f"metadata/{detector}/names_everywhere", detector, _swap_everywhere(detector), wrong)
    yield _json("metadata/contradiction", FOREST, METADATA[FOREST], lambda d: d.update(n_features=6),
                ("METADATA_INVALID", METADATA[FOREST]))  # fmt: skip


def _swap_json_means(data: dict) -> None:
    means = data["scaler"]["mean"]
    means[0], means[1] = means[1], means[0]


def _swap_names(data: dict) -> None:
    data["feature_names"][:2] = data["feature_names"][1::-1]


def _swap_schema(data: dict) -> None:
    _swap_names(data)
    features = data["feature_schema"]["features"]
    features[:2] = features[1::-1]


def _swap_everywhere(detector: str) -> Callable[[SetCopy], None]:
    def mutate(copy: SetCopy) -> None:
        copy.edit_json(METADATA[detector], _swap_schema)
        names = ",".join(copy.json(METADATA[detector])["feature_names"])
        copy.edit_graph(detector, lambda model: scorers.set_property(model, "dwcp.features", names))

    return mutate


def _golden() -> Iterator[Mutation]:
    def case(change: Callable[[dict], None], outcome: str) -> Callable[[dict], None]:
        return lambda data: change(next(c for c in data["cases"] if outcome in c))

    def next_score(c: dict) -> None:
        import numpy as np

        following = np.nextafter(np.float32(c["score"]["score"]), np.float32(np.inf))
        c["score"].update(score=float(following), score_bits=int(following.view(np.uint32)))

    def turn(c: dict) -> None:
        c["score"]["is_anomaly"] = not c["score"].get("is_anomaly", False)

    def rotate(c: dict) -> None:
        shares = c["score"]["contributions"]
        c["score"]["contributions"] = [*shares[1:], shares[0]]

    def other_code(c: dict) -> None:
        c["error"]["code"] = "ERROR_CODE_NO_SAMPLES"

    def other_field(c: dict) -> None:
        c["error"]["field"] = "samples[255].jitter"

    for detector, file in GOLDEN.items():
        found = ("GOLDEN_MISMATCH", file)
        yield _json(f"golden/{detector}/score", detector, file, case(next_score, "score"), found, answers=True)
        yield _json(f"golden/{detector}/decision", detector, file, case(turn, "score"), found, answers=True)
        yield _json(f"golden/{detector}/contributions", detector, file, case(rotate, "score"), found, answers=True)
        yield _json(f"golden/{detector}/error_code", detector, file, case(other_code, "error"), found, answers=True)
        yield _json(f"golden/{detector}/error_field", detector, file, case(other_field, "error"), found, answers=True)
        yield _json(f"golden/{detector}/bits_contradict", detector, file,
                    case(lambda c: c["score"].update(score_bits=c["score"]["score_bits"] + 1), "score"),
                    found, ("METADATA_INVALID", file))  # fmt: skip
        yield _json(f"golden/{detector}/no_cases", detector, file, lambda d: d.update(cases=[]), found)
        yield _json(
            f"golden/{detector}/twice",
            detector,
            file,
            lambda d: d["cases"].append(d["cases"][0]),
            ("METADATA_INVALID", file),
        )
        yield Mutation(f"golden/{detector}/removed", detector, _remove(file), (("FILE_MISSING", file),))
        yield Mutation(f"golden/{detector}/unlisted", detector, _unlist(file), (("METADATA_INVALID", MANIFEST),))


def _remove(file: str) -> Callable[[SetCopy], None]:
    return lambda copy: (copy.path / file).unlink()


def _unlist(file: str) -> Callable[[SetCopy], None]:
    def mutate(copy: SetCopy) -> None:
        _remove(file)(copy)
        copy.edit_json(MANIFEST, lambda d: d.update(files=[f for f in d["files"] if f["path"] != file]))

    return mutate


def _files() -> Iterator[Mutation]:
    def halve(file: str, *, redigest: bool) -> Callable[[SetCopy], None]:
        def mutate(copy: SetCopy) -> None:
            path = copy.path / file
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            if redigest:
                copy.redigest()

        return mutate

    yield Mutation(f"truncated/{MANIFEST}", FOREST, halve(MANIFEST, redigest=False), (("METADATA_INVALID", MANIFEST),))
    for detector in DETECTORS:
        for file in filter(None, (METADATA[detector], GRAPH.get(detector), GOLDEN[detector])):
            code = "GRAPH_INVALID" if file.endswith(".onnx") else "METADATA_INVALID"
            yield Mutation(f"truncated/{file}", detector, halve(file, redigest=False), (("DIGEST_MISMATCH", file),))
            yield Mutation(f"truncated_and_digested/{file}", detector, halve(file, redigest=True), ((code, file),))
    for detector, file in BYPRODUCTS.items():
        yield Mutation(f"truncated/{file}", detector, halve(file, redigest=False), (("DIGEST_MISMATCH", file),))

    def edit_digest(data: dict) -> None:
        entry = next(f for f in data["files"] if f["path"] == GRAPH[LSTM])
        entry["sha256"] = entry["sha256"][:-1] + ("0" if entry["sha256"][-1] != "0" else "1")

    yield _json("digest/edited", LSTM, MANIFEST, edit_digest, ("DIGEST_MISMATCH", GRAPH[LSTM]))
    versioned = [(FOREST, MANIFEST), *((d, file) for d in DETECTORS for file in (METADATA[d], GOLDEN[d]))]
    for detector, file in versioned:
        yield _json(
            f"future/{file}", detector, file, lambda d: d.update(schema_version=2), ("SCHEMA_FROM_FUTURE", file)
        )
        yield _json(f"unknown_field/{file}", detector, file, lambda d: d.update(surprise=1), ("METADATA_INVALID", file))
        yield _json(f"no_version/{file}", detector, file, lambda d: d.pop("schema_version"), ("METADATA_INVALID", file))
    yield Mutation("removed/manifest", FOREST, _remove(MANIFEST), (("MANIFEST_MISSING", MANIFEST),))
    yield Mutation("removed/graph", FOREST, _remove(GRAPH[FOREST]), (("FILE_MISSING", GRAPH[FOREST]),))


BYPRODUCTS = {
    FOREST: "isolation_forest.pkl",
    LSTM: "lstm_autoencoder.keras",
    "dense_autoencoder": "dense_autoencoder.keras",
    "local_outlier_factor": "local_outlier_factor.pkl",
    "one_class_svm": "one_class_svm_scaler.pkl",
    "lstm_classifier": "lstm_classifier.keras",
    "mahalanobis": "mahalanobis.npz",
}
"""A by-product of each detector that has any: never opened, and refused when its digest is wrong (A5)."""

MUTATIONS: list[Mutation] = [
    *_forest(),
    *_lstm(),
    *dense.mutations(),
    *neighbors.mutations(),
    *svm.mutations(),
    *classifier.mutations(),
    *ensemble.mutations(),
    *mahalanobis.mutations(),
    *drift.mutations(),
    *_metadata(),
    *_golden(),
    *_files(),
]
"""All mutations."""
