"""The failover test's playbook on the lab, and the evidence that it leaves."""

from __future__ import annotations

import json
from typing import Any

import _run
from chaos.faults import Broken

EVIDENCE = _run.ARTIFACTS / "failover.json"


def run_test(given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Run it with these variables: its exit code and its evidence.

    :raises Broken: it has left none
    """
    EVIDENCE.unlink(missing_ok=True)
    code = _run.run_playbook("playbooks/test_failover.yml", "-e", json.dumps(given))
    if not EVIDENCE.is_file():
        raise Broken("the test has left no evidence")
    return code, dict(json.loads(EVIDENCE.read_text(encoding="utf-8")))
