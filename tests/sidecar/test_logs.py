"""What the server says on standard error: one line per event, whatever is in it."""

import datetime
import json
import subprocess
import sys

import pytest

_SAY = """
import logging, sys
from dwcp_sidecar.server import logs
logs.setup(sys.argv[1])
log = logging.getLogger("dwcp_sidecar.reload")
log.info("swapped %s", "a set", extra={"model_set_id": "ab12", "seconds": 0.25, "time": "noon"})
log.debug("not this one")
logging.getLogger("somelib").info("nor this one")
logging.getLogger("somelib").warning("but this\\none\\x1b[31m\\u2028x")
try:
    raise ValueError("three\\nlines")
except ValueError:
    log.exception("failed")
"""


def said(format):
    done = subprocess.run([sys.executable, "-c", _SAY, format], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("\n")
    return done.stderr.splitlines()


def test_json_lines():
    swapped, foreign, failed = map(json.loads, said("json"))
    assert swapped.pop("time").endswith("Z")
    assert swapped == {
        "level": "INFO",
        "logger": "dwcp_sidecar.reload",
        "message": "swapped a set",
        "model_set_id": "ab12",
        "seconds": 0.25,
        "time_": "noon",
    }
    assert (foreign["level"], foreign["logger"]) == ("WARNING", "somelib")
    assert foreign["message"] == "but this\none\x1b[31m\u2028x"
    assert (failed["level"], failed["message"]) == ("ERROR", "failed")
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ValueError: three\nlines")


@pytest.mark.parametrize("format", ["text", "json"])
def test_times_are_utc(format):
    line = said(format)[0]
    written = json.loads(line)["time"] if format == "json" else line.split()[0]
    time = datetime.datetime.fromisoformat(written)
    assert time.utcoffset() == datetime.timedelta(0)
    assert abs((datetime.datetime.now(datetime.UTC) - time).total_seconds()) < 60


def test_text_lines():
    swapped, foreign, failed = said("text")
    assert swapped.split(" ", 1)[1] == (
        "INFO dwcp_sidecar.reload: swapped a set model_set_id=ab12 seconds=0.25 time_=noon"
    )
    assert foreign.endswith(r"WARNING somelib: but this\none\x1b[31m\u2028x")
    assert "ERROR dwcp_sidecar.reload: failed exception=Traceback" in failed
    assert failed.endswith(r"ValueError: three\nlines")


def test_a_second_setup_takes_the_place_of_the_first():
    twice = "from dwcp_sidecar.server import logs; logs.setup('text')\n" + _SAY
    done = subprocess.run([sys.executable, "-c", twice, "json"], capture_output=True, text=True, timeout=60)
    assert len([json.loads(line) for line in done.stderr.splitlines()]) == 3
