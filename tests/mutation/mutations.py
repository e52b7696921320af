"""The table of mutations: what is damaged, and the refusals that are right for it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.mutation import scorers
from tests.mutation.scorers import FOREST, LSTM, in_graph
from tests.mutation.set_copy import MANIFEST, METADATA, SetCopy

GOLDEN = {FOREST: f"{FOREST}.golden.json", LSTM: f"{LSTM}.golden.json"}
GRAPH = {FOREST: f"{FOREST}.onnx", LSTM: f"{LSTM}.onnx"}
SERVING = [*METADATA.values(), *GRAPH.values(), *GOLDEN.values()]


@dataclass(frozen=True)
class Mutation:
    """One kind of damage.

    Attributes:
        name: path-like.
        apply: damages a copy.
        refusals: code and file of each right refusal. Mostly one; two where readers differ in what they audit
            before the golden vectors run.
        scores: detector whose graph must then disagree with scikit-learn or Keras on the golden vectors, or None.
        answers: detector whose golden answers must then disagree with them, or None.
    """

    name: str
    apply: Callable[[SetCopy], None]
    refusals: tuple[tuple[str, str], ...]
    scores: str | None = None
    answers: str | None = None


def _found(detector: str, *, audit_may: bool = False) -> tuple[tuple[str, str], ...]:
    """Found by a golden vector, or also by an audit of the graph's nodes."""
    found = (("GOLDEN_MISMATCH", GOLDEN[detector]),)
    return (*found, ("GRAPH_INVALID", GRAPH[detector])) if audit_may else found


def _audited(detector: str) -> tuple[tuple[str, str], ...]:
    return (("GRAPH_INVALID", GRAPH[detector]),)


def _contradiction(detector: str) -> tuple[tuple[str, str], ...]:
    return (("METADATA_INVALID", METADATA[detector]),)


def _forest() -> Iterator[Mutation]:
    def graph(name, change, refusals, scores=FOREST):
        return Mutation(f"forest/{name}", in_graph(FOREST)(change), refusals, scores)

    yield graph("split/root", scorers.root_split, _found(FOREST))
    yield Mutation("forest/split/float32_step", scorers.split_one_float32_step, _found(FOREST), FOREST)
    yield graph("split/inverted", scorers.inverted_comparison, _audited(FOREST))
    yield graph("features/swapped", scorers.swap_feature_ids, _found(FOREST))
    yield graph("features/one_root", scorers.another_feature_at_one_root, _found(FOREST))
    yield graph("leaves/without_c2", scorers.drop_c2, _found(FOREST))
    yield graph("leaves/grid_step", scorers.one_leaf_by_one_grid_step, _found(FOREST))
    yield graph("leaves/off_grid", scorers.leaf_off_the_grid, _audited(FOREST), None)
    yield Mutation("forest/float32_scaling", scorers.scale_in_float32(FOREST), _found(FOREST, audit_may=True), FOREST)
    yield graph("sign/graph", scorers.negate_rate, _audited(FOREST))
    yield Mutation("forest/sign/everywhere", scorers.negate_rate_everywhere, _contradiction(FOREST), FOREST)
    yield Mutation("forest/threshold/depth", scorers.depth_threshold_everywhere, _contradiction(FOREST), FOREST)
    yield Mutation("forest/threshold/score", scorers.forest_threshold_without_depth, _contradiction(FOREST))
    yield Mutation("forest/threshold/everywhere", scorers.forest_threshold_everywhere, _found(FOREST), FOREST)
    yield graph("means/graph", scorers.swap_means, _audited(FOREST))
    yield Mutation("forest/means/everywhere", scorers.swap_means_everywhere(FOREST), _found(FOREST), FOREST)
    yield Mutation("forest/reference_scaled", scorers.another_reference_value, _audited(FOREST), FOREST)


def _lstm() -> Iterator[Mutation]:
    yield Mutation("lstm/gates/forget_output", scorers.swap_gates("encoder_1", "forget", "output"), _found(LSTM), LSTM)
    yield Mutation(
        "lstm/gates/kernel", scorers.swap_gates("decoder_1", "input", "forget", ("kernel",)), _found(LSTM), LSTM
    )
    yield Mutation("lstm/gates/keras", scorers.swap_gates("decoder_2", "output", "candidate"), _found(LSTM), LSTM)
    yield Mutation("lstm/weight/visible", scorers.change_weight("encoder_1.kernel", 0.01), _found(LSTM), LSTM)
    yield Mutation("lstm/weight/float32_step", scorers.change_weight("decoder_2.recurrent", None), _found(LSTM), LSTM)
    yield Mutation("lstm/weight/dense_bias", scorers.change_weight("dense.bias", None), _found(LSTM), LSTM)
    yield Mutation("lstm/float32_scaling", scorers.scale_in_float32(LSTM), _found(LSTM, audit_may=True), LSTM)
    yield Mutation("lstm/threshold/graph", in_graph(LSTM)(scorers.lstm_threshold_in_graph), _audited(LSTM), LSTM)
    yield Mutation("lstm/threshold/everywhere", scorers.lstm_threshold_everywhere, _found(LSTM), LSTM)
    yield Mutation("lstm/means/graph", in_graph(LSTM)(scorers.swap_means), _audited(LSTM), LSTM)
    yield Mutation("lstm/means/everywhere", scorers.swap_means_everywhere(LSTM), _found(LSTM), LSTM)
    yield Mutation("graphs/swapped", scorers.swap_graphs, (("GRAPH_INVALID", GRAPH[FOREST]),))


def _json(name: str, file: str, change: Callable, *refusals: tuple[str, str], answers: str | None = None) -> Mutation:
    return Mutation(name, lambda copy: copy.edit_json(file, change), refusals, answers=answers)


def _metadata() -> Iterator[Mutation]:
    for detector, file in METADATA.items():
        yield _json(f"metadata/{detector}/threshold", file,
                    lambda d: d.update(threshold=scorers.next_midpoint(d["threshold"])),
                    *(_audited(LSTM) if detector == LSTM else _contradiction(FOREST)))  # fmt: skip
        yield _json(f"metadata/{detector}/threshold_no_midpoint", file,
                    lambda d: d.update(threshold=d["threshold"] * (1 + 1e-9)), ("METADATA_INVALID", file))  # fmt: skip
        yield _json(f"metadata/{detector}/means", file, _swap_json_means, ("GRAPH_INVALID", GRAPH[detector]))
        yield _json(f"metadata/{detector}/names", file, _swap_names, ("METADATA_INVALID", file))
        yield _json(f"metadata/{detector}/names_and_schema", file, _swap_schema, ("GRAPH_INVALID", GRAPH[detector]))
        yield Mutation(f"metadata/{detector}/names_everywhere", _swap_everywhere(detector), _found(detector))
        yield _json(f"metadata/{detector}/no_class", file, lambda d: d.pop("parity_class"), ("METADATA_INVALID", file))
    yield _json("metadata/contradiction", METADATA[FOREST], lambda d: d.update(n_features=6),
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
        yield _json(f"golden/{detector}/score", file, case(next_score, "score"), found, answers=detector)
        yield _json(f"golden/{detector}/decision", file, case(turn, "score"), found, answers=detector)
        yield _json(f"golden/{detector}/contributions", file, case(rotate, "score"), found, answers=detector)
        yield _json(f"golden/{detector}/error_code", file, case(other_code, "error"), found, answers=detector)
        yield _json(f"golden/{detector}/error_field", file, case(other_field, "error"), found, answers=detector)
        yield _json(f"golden/{detector}/bits_contradict", file,
                    case(lambda c: c["score"].update(score_bits=c["score"]["score_bits"] + 1), "score"),
                    found, ("METADATA_INVALID", file))  # fmt: skip
        yield _json(f"golden/{detector}/no_cases", file, lambda d: d.update(cases=[]), found)
        yield _json(
            f"golden/{detector}/twice", file, lambda d: d["cases"].append(d["cases"][0]), ("METADATA_INVALID", file)
        )
        yield Mutation(f"golden/{detector}/removed", _remove(file), (("FILE_MISSING", file),))
        yield Mutation(f"golden/{detector}/unlisted", _unlist(file), (("METADATA_INVALID", MANIFEST),))


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

    yield Mutation(f"truncated/{MANIFEST}", halve(MANIFEST, redigest=False), (("METADATA_INVALID", MANIFEST),))
    for file in SERVING:
        code = "GRAPH_INVALID" if file.endswith(".onnx") else "METADATA_INVALID"
        yield Mutation(f"truncated/{file}", halve(file, redigest=False), (("DIGEST_MISMATCH", file),))
        yield Mutation(f"truncated_and_digested/{file}", halve(file, redigest=True), ((code, file),))
    for file in ("isolation_forest.pkl", "lstm_autoencoder.keras"):
        yield Mutation(f"truncated/{file}", halve(file, redigest=False), (("DIGEST_MISMATCH", file),))

    def edit_digest(data: dict) -> None:
        entry = next(f for f in data["files"] if f["path"] == GRAPH[LSTM])
        entry["sha256"] = entry["sha256"][:-1] + ("0" if entry["sha256"][-1] != "0" else "1")

    yield _json("digest/edited", MANIFEST, edit_digest, ("DIGEST_MISMATCH", GRAPH[LSTM]))
    for file in (MANIFEST, *METADATA.values(), *GOLDEN.values()):
        yield _json(f"future/{file}", file, lambda d: d.update(schema_version=2), ("SCHEMA_FROM_FUTURE", file))
        yield _json(f"unknown_field/{file}", file, lambda d: d.update(surprise=1), ("METADATA_INVALID", file))
        yield _json(f"no_version/{file}", file, lambda d: d.pop("schema_version"), ("METADATA_INVALID", file))
    yield Mutation("removed/manifest", _remove(MANIFEST), (("MANIFEST_MISSING", MANIFEST),))
    yield Mutation("removed/graph", _remove(GRAPH[FOREST]), (("FILE_MISSING", GRAPH[FOREST]),))


MUTATIONS: list[Mutation] = [*_forest(), *_lstm(), *_metadata(), *_golden(), *_files()]
"""All mutations."""
