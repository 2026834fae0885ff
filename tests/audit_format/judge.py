"""Judges many bundles by examples/verify_audit.py, started once.

Each line of standard input is a case in JSON: `bundle` and `older` in base64 (`older` may be null), `keys`, `witnesses` and `quorum` (which may be null). Each line of
standard output is a verdict: `accepted`, or `refused: REASON`.
"""

import base64
import io
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples"))
sys.dont_write_bytecode = True

from verify_audit import Altered, verify  # noqa: E402

for line in sys.stdin:
    case = json.loads(line)
    older = None if case["older"] is None else io.BytesIO(base64.b64decode(case["older"]))
    try:
        verify(io.BytesIO(base64.b64decode(case["bundle"])), case["keys"], older, case["witnesses"], case["quorum"])
        print("accepted")
    except (Altered, ValueError, RecursionError) as error:
        print("refused:", json.dumps(str(error))[1:-1])
