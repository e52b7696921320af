"""Every implementation gives the same bits: on the frozen sets' vectors, further frozen ones and 200 inputs each."""

import functools
import io
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dwcp_sidecar.golden import run_golden
from dwcp_sidecar.model import Explain
from dwcp_sidecar.model_set import ModelSet
from tests.conformance import judge
from tests.conformance.cases import DETECTORS
from tests.conformance.compare import Tally, compare, published
from tests.conformance.go_program import GO_FOLDER, contract_score
from tests.conformance.golden_files import cases_of, joined, read_golden, wanted_of
from tests.conformance.implementations import BUILDERS
from tests.conformance.inputs import generate, kinds_of
from tests.conformance.invalid import fault_count
from tests.conformance.reference import REFERENCES, Reference
from tests.conformance.sets import HOME, SETS, detectors_of

pytestmark = pytest.mark.timeout(600)  # the first test of a session pays for all runs
VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "v1"
INPUTS = 150
BATCHES = (1, 4096)
"""`make parity` adds 7 and 64."""
SKLEARN_BOUND = 3e-15
"""Largest difference from scikit-learn's own score (IF4)."""
SKLEARN_RELATIVE_BOUND = 1e-12
"""Largest relative difference from scikit-learn's sums and scores (LF4, SV2)."""


@dataclass
class Session:
    """All that is judged of the frozen sets."""

    references: dict[str, Reference]
    questions: dict[str, judge.Question]
    results: list[judge.Result]


opened = functools.cache(ModelSet.open)
"""A frozen set, opened once for all its detectors."""


def golden_parts(detector: str):
    """Cases and answers of the vectors in the detector's set and of those in tests/vectors."""
    for prefix, folder in (("own", HOME[detector]), ("v1", VECTORS)):
        file = read_golden(folder / f"{detector}.golden.json")
        yield cases_of(file, prefix), wanted_of(file)


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("requests")
    made = Session({}, {}, [])
    for models in SETS:
        questions = {}
        for detector in (name for name, home in HOME.items() if home == models):
            reference = REFERENCES[detector](models)
            parts = list(golden_parts(detector))
            inputs = generate(reference.source(), INPUTS, seed=1_000)
            cases, wanted = joined([*parts, (inputs, reference.answer(inputs))])
            some = 150  # of the vectors of the set itself
            made.references[detector] = reference
            questions[detector] = judge.prepare(reference, cases, wanted, folder, some)
        made.questions |= questions
        made.results += judge.judge(list(questions.values()), models, batches=BATCHES)
    return made


def test_the_frozen_sets_have_every_detector():
    assert all(detector in detectors_of(models) for detector, models in HOME.items())
    assert set(HOME) == set(DETECTORS) == set(REFERENCES)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("name", BUILDERS)
def test_implementation_equals_the_reference(session: Session, name: str, detector: str):
    results = [r for r in session.results if (r.implementation, r.detector) == (name, detector)]
    assert len(results) == 2  # all cases, and the other batch sizes and thread counts
    assert results[0].tally.cases == len(session.questions[detector].cases) > INPUTS
    text = io.StringIO()
    judge.show(results, Console(file=text, width=170))
    assert judge.passed(results, [name], [detector]), text.getvalue()


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_reference_confirms_every_golden_vector(session: Session, detector: str):
    for cases, wanted in golden_parts(detector):
        reference = session.references[detector]
        tally = compare(cases, reference, wanted, published(reference.answer(cases), len(reference.names)))
        assert tally.passed, "\n".join(map(str, tally.mismatches))
        assert tally.equal == len(cases)


def scored_items(session: Session, detector: str) -> np.ndarray:
    """The items that are scored, float64 `[n, 1, features]`, of a detector without window."""
    question = session.questions[detector]
    return np.stack([np.asarray(question.cases[i].samples[-1:]) for i in question.wanted.scored])


def test_forest_is_within_the_bound_of_scikit_learn(session: Session):
    reference, items = session.references["isolation_forest"], scored_items(session, "isolation_forest")
    apart = np.abs(reference.sklearn_scores(items) - reference.evaluate(items).scores)
    assert (apart <= SKLEARN_BOUND).all(), apart.max()


def test_neighbors_score_as_scikit_learn_where_none_tie(session: Session):
    reference, items = session.references["local_outlier_factor"], scored_items(session, "local_outlier_factor")
    ties = reference.ties(items)
    assert 0 < ties.sum() < len(items) / 2  # LF2 is tried, and so is scikit-learn
    apart = np.abs(reference.sklearn_scores(items) / reference.evaluate(items).scores - 1)
    assert (apart[~ties] <= SKLEARN_RELATIVE_BOUND).all(), apart[~ties].max()


def test_svm_decides_as_scikit_learn(session: Session):
    """SV2: `inside - rho` is scikit-learn's decision function, and the score falls where it rises."""
    reference, items = session.references["one_class_svm"], scored_items(session, "one_class_svm")
    decisions, scores = reference.sklearn_decisions(items), reference.evaluate(items).scores
    inside = reference.inside(items)
    total = reference.model.dual_coef_.sum()
    assert np.abs(decisions - (inside + reference.model.intercept_)).max() <= SKLEARN_RELATIVE_BOUND * total
    # Sums that differ by rounding alone may be in another order than their scores.
    order = np.argsort(inside)
    rises = np.diff(inside[order]) > SKLEARN_RELATIVE_BOUND * total
    assert rises.sum() > len(items) / 2
    assert (np.diff(scores[order])[rises] < 0).all()


@pytest.mark.parametrize("detector", DETECTORS)
def test_generated_inputs_are_complete_and_repeatable(session: Session, detector: str):
    reference = session.references[detector]
    source = reference.source()
    cases = generate(source, 300, seed=3)
    assert [c.line for c in cases] == [c.line for c in generate(source, 300, seed=3)]
    assert [c.line for c in cases] != [c.line for c in generate(source, 300, seed=4)]
    kinds = {case.kind for case in cases}
    assert set(kinds_of(source)) <= kinds
    faults = {kind for kind in kinds if kind.startswith("invalid/")}
    assert len(faults) == fault_count(reference.timesteps, source.absent)
    assert len({case.id for case in cases}) == len(cases) == 300
    wanted = reference.answer(cases)
    refused = [case.kind for case, fault in zip(cases, wanted.faults, strict=True) if fault is not None]
    assert sorted(refused) == sorted(case.kind for case in cases if case.kind.startswith("invalid/"))
    alarms = wanted.evaluation.is_anomaly
    assert 0.2 < alarms.mean() < 0.8  # both decisions are tried


@pytest.mark.parametrize("detector", DETECTORS)
def test_python_runs_every_golden_case(detector: str):
    models = opened(HOME[detector])
    for folder in (HOME[detector], VECTORS):
        file = read_golden(folder / f"{detector}.golden.json")
        ran = []

        def score(samples, ran=ran):
            ran.append(samples)
            return models.model(detector).score(samples, Explain.ALWAYS)

        assert run_golden(file, models.model(detector), score) == []
        assert repr(ran) == repr([[list(sample.values) for sample in case.samples] for case in file.cases])


@pytest.mark.parametrize("models", SETS, ids=lambda path: path.name)
@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
def test_go_runs_every_golden_case(models: Path, backend: str):
    command = [contract_score(backend), "--models", models, "--backend", backend, "--golden"]
    done = subprocess.run(command, cwd=GO_FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+): (\d+) golden vectors, 0 failed$", done.stdout, re.MULTILINE))
    files = {detector: read_golden(models / f"{detector}.golden.json") for detector in detectors_of(models)}
    assert counts == {detector: str(len(file.cases)) for detector, file in files.items()}


class TestTheJudgeItself:
    """A judge that lets a difference pass proves nothing."""

    @pytest.fixture
    def parts(self, session: Session):
        reference = session.references["isolation_forest"]
        cases = session.questions["isolation_forest"].cases[:300]
        wanted = judge.first(session.questions["isolation_forest"].wanted, 300)
        return cases, reference, wanted, published(wanted, len(reference.names))

    def test_equal_answers_pass(self, parts):
        assert compare(*parts).passed

    @pytest.mark.parametrize(
        ("column", "spoil"),
        [
            ("scores", lambda column, i: column.__setitem__(i, np.nextafter(np.float32(column[i]), np.float32(2)))),
            ("scores", lambda column, i: column.__setitem__(i, np.nan)),
            ("scores", lambda column, i: column.__setitem__(i, np.nextafter(column[i], 2))),  # no float32 number
            ("bits", lambda column, i: column.__setitem__(i, column[i] + 1)),
            ("is_anomaly", lambda column, i: column.__setitem__(i, not column[i])),
            ("contributions", lambda column, i: column.__setitem__((i, 3), np.nan)),
            ("contributions", lambda column, i: column.__setitem__(i, np.roll(column[i], 1))),
            ("expected", lambda column, i: column.__setitem__((i, 0), -column[i, 0])),
            ("depth_sums", lambda column, i: column.__setitem__(i, column[i] + 2.0**-40)),
            ("errors", lambda column, i: column.__setitem__(i, ("NOT_FINITE", "samples[0].latency"))),
            ("faults", lambda column, i: column.append("299 answers to 300 requests")),
        ],
    )
    def test_one_difference_fails(self, parts, column: str, spoil):
        answers, wanted = parts[3], parts[2]
        spread = np.ptp(answers.contributions[wanted.scored], axis=1)
        spoil(getattr(answers, column), int(wanted.scored[np.argmax(spread)]))
        assert not compare(*parts).passed

    def test_what_depends_on_a_number_in_the_gap_is_counted_apart(self, parts, monkeypatch):
        """P2 for an ensemble, whose members publish before it does; and few may do so."""
        cases, reference, wanted, answers = parts
        row = int(wanted.scored[0])
        answers.contributions[row] = np.roll(answers.contributions[row], 1)
        asked = []
        monkeypatch.setattr(reference, "unsure", lambda items, within: asked.append(items) or np.ones(len(items), bool))
        tally = compare(*parts)
        assert (tally.in_gap, tally.explanations, tally.equal) == (1, 0, 299)
        assert np.array_equal(asked[0], np.stack([cases[row].samples[-1:]]))
        assert not tally.passed

    def test_a_wrong_error_field_fails(self, parts):
        refused = next(i for i, fault in enumerate(parts[2].faults) if fault is not None)
        code, field = parts[3].errors[refused]
        parts[3].errors[refused] = (code, field + "x")
        tally = compare(*parts)
        assert (tally.errors, tally.passed) == (1, False)

    def test_no_cases_fail(self):
        assert not Tally().passed
        assert not judge.passed([], [], [])

    def test_an_implementation_that_is_missing_fails(self, session: Session):
        assert not judge.passed(session.results, [*BUILDERS, "another"], DETECTORS)
        assert judge.main(["--implementations", "another", "--inputs", "400"]) == 1

    def test_a_program_that_cannot_run_fails(self, session: Session, tmp_path: Path, monkeypatch):
        from tests.conformance.implementations import Program

        monkeypatch.setitem(BUILDERS, "broken", lambda *_: Program("broken", False, ("/nonexistent",)))
        results = judge.judge([session.questions["isolation_forest"]], tmp_path, ["broken"], batches=[64])
        assert results[0].tally.faults
        assert not judge.passed(results, ["broken"], ["isolation_forest"])
