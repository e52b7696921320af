"""`dwcp-sidecar score`: one answer per line, in order, whatever the line is (rule E5)."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_sidecar.executor import InProcess, execute, read_lines
from dwcp_sidecar.requests import answer as answer_line
from dwcp_sidecar.verdicts import Verdicts
from tests.conformance.answers import read_answers

pytestmark = pytest.mark.timeout(120)
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
FOREST, LSTM = "isolation_forest", "lstm_autoencoder"


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def answers(reference, lines, batch=4):
    out = io.BytesIO()
    execute(lines, out, InProcess(reference), batch)
    text = out.getvalue()
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line, parse_constant=no_constant) for line in text.split(b"\n")[:-1]]


def line(samples, id=1, detector=FOREST):
    return json.dumps({"id": id, "detector": detector, "samples": samples}).encode()


def error(answer):
    assert set(answer) == {"id", "error"}
    assert set(answer["error"]) == {"code", "field", "message"}
    return answer["id"], answer["error"]["code"], answer["error"]["field"]


def test_an_expected_value_beyond_float32_is_still_json(tmp_path):
    """P1: it is an infinity, written as E5 writes one; the judge reads that and no bare word."""
    row = np.zeros((1, 3), np.float32)
    expected = np.array([[1.5, np.inf, -np.inf]], np.float32)
    nothing = np.zeros(1)
    verdicts = Verdicts(row[:, 0], nothing > 0, nothing + 1, nothing + 1, row, expected, nothing == 0, None)
    text = answer_line("a", verdicts)
    assert json.loads(text, parse_constant=no_constant)["expected"] == [1.5, "Infinity", "-Infinity"]
    file = tmp_path / "answers"
    file.write_text(f"{text}\n{text.replace(chr(34) + 'Infinity' + chr(34), 'Infinity')}\n")
    read = read_answers(file, ["a", "a"], 3, depth=False)
    assert read.expected[0].tolist() == [1.5, math.inf, -math.inf]
    assert len(read.faults) == 1
    assert "answer 1" in read.faults[0]


CORNERS = [
    (b"", None, "INVALID_REQUEST", ""),
    (b"   ", None, "INVALID_REQUEST", ""),
    (b"{", None, "INVALID_REQUEST", ""),
    (b"[]", None, "INVALID_REQUEST", ""),
    (b"null", None, "INVALID_REQUEST", ""),
    (b"7", None, "INVALID_REQUEST", ""),
    (b'"x"', None, "INVALID_REQUEST", ""),
    (b'{"id": 1} {"id": 2}', None, "INVALID_REQUEST", ""),
    (b'\xff{"id": 1}', None, "INVALID_REQUEST", ""),
    (b'{"id": "\xed\xa0\x80"}', None, "INVALID_REQUEST", ""),
    ('{"id": 1}'.encode("utf-16"), None, "INVALID_REQUEST", ""),
    (b'\xef\xbb\xbf{"id": 1}', None, "INVALID_REQUEST", ""),
    (b"[" * 100_000, None, "INVALID_REQUEST", ""),
    (b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}", None, "INVALID_REQUEST", ""),
    (b'{"id": 4, "detector": "isolation_forest", "samples": [[NaN]]}', None, "INVALID_REQUEST", ""),
    (b'{"id": 4, "detector": "isolation_forest", "samples": [[-Infinity]]}', None, "INVALID_REQUEST", ""),
    (b"{}", None, "INVALID_REQUEST", "detector"),
    (b'{"id": 4}', 4, "INVALID_REQUEST", "detector"),
    (b'{"id": 4, "detector": 1, "samples": 1}', 4, "INVALID_REQUEST", "detector"),
    (b'{"id": 4, "detector": null}', 4, "INVALID_REQUEST", "detector"),
    (b'{"id": 4, "detector": "isolation_forest"}', 4, "INVALID_REQUEST", "samples"),
    (b'{"id": 4, "detector": "no_such", "samples": {}}', 4, "INVALID_REQUEST", "samples"),
    (line([1.0, 2.0]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], None]]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], True]]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], "1.0"]]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], "nan"]]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], "+Infinity"]]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], []]]), 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], {}]]), 1, "INVALID_REQUEST", "samples"),
    (b'{"id":1,"detector":"x","samples":[[' + b"[" * 900 + b"]" * 900 + b"]]}", 1, "INVALID_REQUEST", "samples"),
    (line([[*ROW[:6], "NaN"]]), 1, "NOT_FINITE", "samples[0].error_rate"),
    (line([["Infinity", *ROW[1:]]]), 1, "NOT_FINITE", "samples[0].bandwidth"),
    (line([["-Infinity", *ROW[1:]]]), 1, "NOT_FINITE", "samples[0].bandwidth"),
    (line([ROW], 5).replace(b"105.2", b"1e999"), 5, "NOT_FINITE", "samples[0].bandwidth"),
    (line([ROW], 5).replace(b"105.2", b"-1e999"), 5, "NOT_FINITE", "samples[0].bandwidth"),
    (line([ROW], 5).replace(b"105.2", b"9" * 400), 5, "NOT_FINITE", "samples[0].bandwidth"),
    (line([ROW], 5).replace(b"105.2", b"-" + b"9" * 9000), 5, "NOT_FINITE", "samples[0].bandwidth"),
    (line([ROW], 6, "no_such"), 6, "UNKNOWN_DETECTOR", "detector"),
    (line([ROW], 6, ""), 6, "UNKNOWN_DETECTOR", "detector"),
    (line([], 7), 7, "NO_SAMPLES", "samples"),
    (line([[]], 7), 7, "WRONG_WIDTH", "samples[0]"),
    (line([ROW] * 257, 7), 7, "TOO_MANY_SAMPLES", "samples"),
    (line([ROW] * 9, 7, LSTM), 7, "WINDOW_TOO_SHORT", "samples"),
]


@pytest.mark.parametrize(("text", "id", "code", "field"), CORNERS, ids=range(len(CORNERS)))
def test_corner_cases(reference, text, id, code, field):
    (answer,) = answers(reference, [text])
    assert error(answer) == (id, code, field)


IDS = [
    "null",
    '"a"',
    "0",
    "-1",
    "9007199254740993",
    "12345678901234567890",
    "1.5",
    "true",
    '[1, {"a": 2}]',
    '"\\ud800"',
    '"é"',
]


@pytest.mark.parametrize("id", IDS)
def test_ids_come_back_as_they_were_sent(reference, id):
    for samples in ("[[]]", json.dumps([ROW])):
        (answer,) = answers(reference, [f'{{"id": {id}, "detector": "{FOREST}", "samples": {samples}}}'.encode()])
        assert answer["id"] == json.loads(id)
        assert type(answer["id"]) is type(json.loads(id))


@pytest.mark.parametrize("id", ["1e999", "-1e999", "9" * 5000, "[1e999]"])
def test_an_id_too_large_for_a_number_still_gives_json(reference, id):
    (answer,) = answers(reference, [f'{{"id": {id}, "detector": "{FOREST}", "samples": []}}'.encode()])
    assert "Infinity" in json.dumps(answer["id"])


def test_an_answer_has_the_bits_of_the_model(reference):
    (answer,) = answers(reference, [line([ROW])])
    wanted = reference.model(FOREST).score([ROW])
    assert set(answer) == {"id", "score", "score_bits", "is_anomaly", "contributions", "expected", "depth_sum"}
    assert answer["score_bits"] == int(wanted.scores.view(np.uint32)[0])
    assert np.float32(answer["score"]) == wanted.scores[0]
    assert answer["contributions"] == wanted.contributions[0].tolist()
    assert answer["expected"] == wanted.expected[0].tolist()
    assert answer["depth_sum"] == wanted.depth_sums[0]
    (answer,) = answers(reference, [line([ROW] * 10, detector=LSTM)])
    assert "depth_sum" not in answer


def test_integers_and_signed_zero_are_numbers(reference):
    one, other, third = answers(
        reference,
        [line([[1, 2, 0, 4, 5, 6, 7]]), line([[1.0, 2.0, 0.0, 4.0, 5.0, 6.0, 7.0]]), line([[1, 2, -0.0, 4, 5, 6, 7]])],
    )
    assert one["score_bits"] == other["score_bits"] == third["score_bits"]


@pytest.fixture(scope="module")
def mixed(reference):
    """Lines of both detectors, valid and not, in an order that breaks up batches."""
    lines = [text for text, *_ in CORNERS[::3] if len(text) < 10_000]
    for detector, golden in reference.golden.items():
        for case in golden.cases:
            samples = [
                [
                    x if math.isfinite(x) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(x, "NaN")
                    for x in s.values
                ]
                for s in case.samples
            ]
            lines.append(line(samples, case.id, detector))
    np.random.default_rng(1).shuffle(lines)
    lines += sorted((text for text in lines if LSTM.encode() in text), key=len)
    return lines


def comparable(answer):
    """An answer without the messages, which are for people."""
    return {**answer, "error": {**answer["error"], "message": ""}} if "error" in answer else answer


def test_no_answer_depends_on_the_batch(reference, mixed):
    singles = answers(reference, mixed, batch=1)
    assert len(singles) == len(mixed)
    for batch in (2, 7, 64, 16_384):
        assert answers(reference, mixed, batch) == singles
    assert answers(reference, [part for text in mixed for part in (None, text)], 64) == singles


@pytest.mark.parametrize("batch", ["1", "16"])
def test_a_server_gives_the_same_answers(command, served, reference, reference_path, mixed, batch):
    text = (b"\n".join(text for text in mixed if b"\n" not in text and _is_text(text)) + b"\n").decode()
    here = command("score", "--models", reference_path, "--threads", "2", input=text)
    there = command(
        "score",
        "--models",
        reference_path,
        "--address",
        served.addresses[int(batch) // 16],
        "--batch",
        batch,
        input=text,
    )
    assert here.returncode == there.returncode == 0, there.stderr
    ours, theirs = ([comparable(json.loads(answer)) for answer in done.stdout.splitlines()] for done in (here, there))
    assert ours == theirs
    assert len(ours) == text.count("\n") > 100


def _is_text(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_server_with_another_set_is_refused_line_by_line(command, served, set_copy):
    set_copy.edit("manifest.json", lambda manifest: manifest)  # other bytes, so another id
    text = line([ROW]).decode() + "\n"
    for batch in ("1", "8"):
        done = command("score", "--models", set_copy.path, "--address", served.address, "--batch", batch, input=text)
        assert error(json.loads(done.stdout)) == (1, "MODEL_SET_MISMATCH", "model_set_id")


def test_no_server_is_an_error_not_an_answer(command):
    done = command("score", "--address", "127.0.0.1:1", input=line([ROW]).decode() + "\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_neither_models_nor_address(command):
    done = command("score")
    assert done.returncode == 2
    assert "--address" in done.stderr


def test_each_line_is_answered_while_the_input_stays_open(reference_path):
    command = [Path(sys.executable).with_name("dwcp-sidecar"), "score", "--models", reference_path, "--batch", "1000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for id in range(3):
            process.stdin.write(line([ROW], id) + b"\n" + line([], id)[:-1] + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == id
            assert error(json.loads(process.stdout.readline())) == (None, "INVALID_REQUEST", "")
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_reader_that_has_enough_is_no_error(reference_path):
    command = [Path(sys.executable).with_name("dwcp-sidecar"), "score", "--models", reference_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        try:
            process.stdin.write((line([ROW]) + b"\n") * 500)
            process.stdin.close()
        except BrokenPipeError:
            pass
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=8),
    st.booleans(),
    st.integers(1, 40),
)
def test_lines_of_a_descriptor(lines, last_newline, piece):
    """Every line comes out whole, however the writer cuts the stream."""
    text = b"".join(item + b"\n" for item in lines)
    if not last_newline and text.endswith(b"\n"):
        text = text[:-1]
    wanted = text.split(b"\n")[: None if text and not text.endswith(b"\n") else -1]
    reader, writer = os.pipe()
    got = []
    stream = read_lines(reader)
    try:
        for start in range(0, len(text), piece):
            os.write(writer, text[start : start + piece])
            while (item := next(stream)) is not None:
                got.append(item)
    finally:
        os.close(writer)
    got += [item for item in stream if item is not None]
    os.close(reader)
    assert got == wanted


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from(["NaN", "Infinity"]),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.floats() | st.integers() | st.sampled_from(["NaN", "Infinity", "-Infinity", *ROW])
SAMPLES = VALUES | st.lists(st.lists(NUMBERS, min_size=6, max_size=8), max_size=12)
DETECTORS = st.sampled_from([FOREST, LSTM, "no_such"]) | VALUES
REQUESTS = st.fixed_dictionaries({}, optional={"id": VALUES, "detector": DETECTORS, "samples": SAMPLES})
LINES = (
    st.text(max_size=40).map(lambda text: text.encode(errors="replace"))
    | st.binary(max_size=40)
    | REQUESTS.map(lambda request: json.dumps(request).encode())
    | VALUES.map(lambda value: json.dumps(value).encode())
).map(lambda text: text.replace(b"\n", b" "))


@given(st.lists(LINES, min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_line_gives_exactly_one_answer(reference, lines, batch):
    got = answers(reference, lines, batch)
    assert len(got) == len(lines)
    for text, answer in zip(lines, got, strict=True):
        assert ("score" in answer) != ("error" in answer)
        if "score" in answer:
            assert math.isfinite(answer["score"])
            assert sum(answer["contributions"]) <= 1.00001
            assert answer["id"] == json.loads(text).get("id")
