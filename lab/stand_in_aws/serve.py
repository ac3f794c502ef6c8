#!/usr/bin/env python
"""Serve the stand-in until it is told to stop: `serve.py PORT [DELAY_SECONDS]`; port 0 takes a free one. Prints its address."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

# The service's own policies, of which Enhanced Monitoring's role has one. Before moto is imported, which reads it once.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from moto.server import ThreadedMotoServer  # noqa: E402

from stand_in_aws import rds  # noqa: E402


def main() -> int:
    """Serve."""
    rds.install()
    rds.delay_seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    stop.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
