"""What a detector consists of, and what of it is missing: one check a part, each written from the outside."""

import re
from collections.abc import Callable

import yaml

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import ensemble
from dwcp_sidecar.audit.registry import LAYOUTS, PARAMETERS
from dwcp_training import publish
from dwcp_training.cli import train_app
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors.registry import DETECTORS as TRAINED
from dwcp_training.golden import drafts
from dwcp_training.profiles.models import Detectors
from dwcp_training.run import SYNTHETIC
from tests.conformance.cases import DETECTORS as JUDGED
from tests.conformance.cases import ENSEMBLE
from tests.conformance.go_program import GO_FOLDER, ROOT
from tests.conformance.reference import REFERENCES
from tests.conformance.sets import HOME, METADATA, detectors_of
from tests.mutation.mutations import MUTATIONS

NAMES = [name.removeprefix("DETECTOR_").lower() for name, number in model_pb2.Detector.items() if number]
"""The detectors of the enum."""

CONTRACT = (ROOT / "proto" / "CONTRACT.md").read_text()
FEWEST_RULES = 4
FEWEST_MUTATIONS = 10
"""Of what computes scores and decisions; damages of files are the same for all detectors."""


def contract(name: str) -> str:
    """A section of the contract whose title is the detector's, with its rules numbered from 1 without a gap."""
    titles = re.findall(r"^## ([A-Z]{2}): (.+)$", CONTRACT, re.MULTILINE)
    letters = [short for short, title in titles if _plain(title) == _plain(name)]
    if len(letters) != 1:
        return f"no section `## XX: {_plain(name)}` in proto/CONTRACT.md"
    numbers = [int(n) for n in re.findall(rf"^- \*\*{letters[0]}(\d+)\*\*", CONTRACT, re.MULTILINE)]
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < FEWEST_RULES:
        return (
            f"the rules {letters[0]} of proto/CONTRACT.md are numbered {numbers}, not from 1 to {FEWEST_RULES} or more"
        )
    return ""


def contract_layout(name: str) -> str:
    """Each of its layouts is described in G2."""
    if name == ENSEMBLE:  # no graph, so no layout of one: a rule of its own says so
        unnamed = [layout for layout in ensemble.LAYOUTS if f"`{layout}`" not in CONTRACT]
        return f"EN7 and EN8 of proto/CONTRACT.md do not name {', '.join(unnamed)}" if unnamed else ""
    described = set(re.findall(r"^  - `([a-z0-9.]+)`:", CONTRACT, re.MULTILINE))
    own = {layout for layout, entry in LAYOUTS.items() if entry.detector == name}
    if own and own <= described:
        return ""
    return f"G2 of proto/CONTRACT.md describes {', '.join(sorted(own & described)) or 'none'} of {sorted(own)}"


def python_audit(name: str) -> str:
    """Parameters and at least one layout in the Python audit."""
    if name not in PARAMETERS:
        return "no line in PARAMETERS of dwcp_sidecar/audit/registry.py"
    if name != ENSEMBLE and name not in {layout.detector for layout in LAYOUTS.values()}:
        return "no layout in LAYOUTS of dwcp_sidecar/audit/registry.py"
    return ""


def go_scorer(name: str) -> str:
    """The same layouts in Go, with the same precision and class, and the detector in its list."""
    source = (GO_FOLDER / "detector.go").read_text()
    constant = re.search(rf"(\w+)\s*= Detector\(anomalyv1\.Detector_DETECTOR_{name.upper()}\)", source)
    if constant is None:
        return "no constant in go-contract/detector.go"
    listed = re.search(r"func Detectors\(\) \[\]Detector \{(.*?)\}\n", source, re.DOTALL)
    if listed is None or not re.search(rf"\b{constant[1]}\b", listed[1]):
        return f"{constant[1]} is not in Detectors() of go-contract/detector.go"
    if name == ENSEMBLE:
        stated = re.findall(r'^const ensembleLayout\w* = "([\w.]+)"$', source, re.MULTILINE)
        same = sorted(stated) == sorted(ensemble.LAYOUTS)
        return "" if same else f"ensembleLayout... of go-contract/detector.go are {stated}, not {ensemble.LAYOUTS}"
    entries = re.findall(rf'"([\w.]+)":\s*\{{{constant[1]}, "(\w+)", (true|false), \w+\}}', source)
    go = {layout: (precision, exact == "true") for layout, precision, exact in entries}
    python = {layout: (entry.precision, entry.exact) for layout, entry in LAYOUTS.items() if entry.detector == name}
    return "" if go == python and go else f"layouts in go-contract/detector.go are {go}, the Python audit has {python}"


def trainer(name: str) -> str:
    """A function that fits it."""
    if name not in TRAINED:
        return "no line in dwcp_training/detectors/registry.py"
    try:
        return "" if callable(TRAINED[name].fit) else f"fit_{name} is no function"
    except (ImportError, AttributeError) as error:
        return f"dwcp_training/detectors/{name}.py: {error}"


def settings(name: str) -> str:
    """Settings that a profile may give, those of the trainer, all written out in the profile of the project."""
    field = Detectors.model_fields.get(name)
    if field is None or name not in TRAINED or field.annotation is not TRAINED[name].settings:
        return "no settings of its trainer in Detectors of dwcp_training/profiles/models.py"
    path = ROOT / "training" / "src" / "dwcp_training" / "profiles" / "dwcp.yaml"
    written = yaml.safe_load(path.read_text())["detectors"].get(name, {})
    missing = set(TRAINED[name].settings.model_fields) - set(written)
    return f"profiles/dwcp.yaml does not say {', '.join(sorted(missing))}" if missing else ""


def golden_drafts(name: str) -> str:
    """Golden cases made for it by search."""
    return "" if name in drafts._DRAFTS else "no line in _DRAFTS of dwcp_training/golden/drafts.py"


def synthetic_data(name: str) -> str:
    """Made-up rows to train on."""
    if name not in SYNTHETIC:
        return "no line in SYNTHETIC of dwcp_training/run.py"
    made = SYNTHETIC[name]()
    return "" if isinstance(made, Telemetry) and len(made) > 1000 else f"SYNTHETIC gives {type(made).__name__}"


def byproducts(name: str) -> str:
    """By-products, so that publishing another detector keeps them."""
    if name == ENSEMBLE:  # its members have them
        return "an ensemble has no by-products" if publish.BYPRODUCTS.get(name) else ""
    return "" if publish.BYPRODUCTS.get(name) else "no line in BYPRODUCTS of dwcp_training/publish.py"


def command(name: str) -> str:
    """`dwcp train <detector>`."""
    wanted = name.replace("_", "-")
    commands = {entry.name for entry in train_app.registered_commands}
    return "" if wanted in commands else f"no command `dwcp train {wanted}` in dwcp_training/cli.py"


def judge_reference(name: str) -> str:
    """A reference of the judge that names it."""
    if name not in JUDGED or name not in METADATA:
        return "not in DETECTORS of tests/conformance/cases.py"
    return "" if name in REFERENCES else "no line in REFERENCES of tests/conformance/reference/"


def frozen_set(name: str) -> str:
    """A frozen set that has it."""
    if name not in HOME:
        return "no line in HOME of tests/conformance/sets.py"
    try:
        return "" if name in detectors_of(HOME[name]) else f"{HOME[name].name} does not have it"
    except ValueError as error:
        return str(error)


def frozen_vectors(name: str) -> str:
    """Golden vectors beyond those in the set."""
    path = ROOT / "tests" / "vectors" / "v1" / f"{name}.golden.json"
    return "" if path.is_file() else f"no tests/vectors/v1/{path.name}: run `python -m tests.vectors.make`"


def mutations(name: str) -> str:
    """Damages of its graph and metadata that every reader must refuse."""
    own = [m for m in MUTATIONS if m.detector == name and m.scores]
    many = len(own) >= FEWEST_MUTATIONS
    return "" if many else f"{len(own)} mutations of its scores in tests/mutation, {FEWEST_MUTATIONS} are wanted"


def documentation(name: str) -> str:
    """A place in the table of detectors of training/README.md."""
    wanted = f"`dwcp train {name.replace('_', '-')}`"
    rows = [line for line in (ROOT / "training" / "README.md").read_text().splitlines() if line.startswith("|")]
    return "" if any(wanted in row for row in rows) else f"no {wanted} in the table of detectors of training/README.md"


def own_tests(name: str) -> str:
    """Tests of the Go scorer."""
    files = [path.name for path in GO_FOLDER.glob("*_test.go")]
    return "" if f"{name}_test.go" in files else f"no go-contract/{name}_test.go"


PARTS: dict[str, Callable[[str], str]] = {
    check.__name__: check
    for check in (
        contract, contract_layout, python_audit, go_scorer, own_tests, trainer, settings, golden_drafts, synthetic_data,
        byproducts, command, judge_reference, frozen_set, frozen_vectors, mutations, documentation,
    )
}  # fmt: skip
"""Part to its check: takes the name of a detector, and says what is missing or nothing."""


def _plain(title: str) -> str:
    return re.sub(r"[-_ ]+", " ", title).lower()
