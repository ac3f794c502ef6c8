"""What stands behind the stand-in's instances: a PostgreSQL on one of two hosts, and the name that leads to it.

Without it (the modules' tests) instances are entries of moto's. The hosts are of :mod:`host`, a zone each.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUEST_SECONDS = 300


@dataclass(frozen=True)
class Certificate:
    """Of the name that clients connect to, in PEM."""

    certificate: str
    key: str


@dataclass
class Backing:
    """Two hosts and a file of names.

    :param hosts: by the last letter of the zone, (address, port of its agent)
    :param names: file in the form of /etc/hosts, which a name server watches
    :param certificate: for an endpoint's name
    :param detection_seconds: what passes before the service has a standby take over
    """

    hosts: dict[str, tuple[str, int]]
    names: Path
    certificate: Callable[[str], Certificate]
    detection_seconds: float = 5.0
    at: dict[str, str] = field(default_factory=dict)

    def make(self, instance: str, endpoint: str, zone: str, parameters: dict[str, str], **wanted: Any) -> None:
        """A server in a zone, and its name."""
        certificate = self.certificate(endpoint)
        self._ask(zone, "make", instance=instance, certificate=certificate.certificate, key=certificate.key, **wanted)
        self._ask(zone, "start", instance=instance, parameters=parameters)
        self._lead(endpoint, zone)

    def fail_over(self, instance: str, endpoint: str, old: str, new: str, parameters: dict[str, str]) -> None:
        """It ends in one zone, and starts in the other one on what has been written."""
        self._ask(old, "stop", instance=instance, how="immediate")
        time.sleep(self.detection_seconds)
        self._ask(new, "start", instance=instance, parameters=parameters)
        self._lead(endpoint, new)

    def restart(self, instance: str, zone: str, parameters: dict[str, str]) -> None:
        """A restart where it is: static parameters are in force."""
        self._ask(zone, "stop", instance=instance, how="fast")
        self._ask(zone, "start", instance=instance, parameters=parameters)

    def set(self, instance: str, zone: str, parameters: dict[str, str]) -> None:
        """Dynamic parameters are in force."""
        self._ask(zone, "set", instance=instance, parameters=parameters)

    def end(self, instance: str, endpoint: str, zone: str) -> None:
        """It is deleted: nobody reaches it any more."""
        self._ask(zone, "stop", instance=instance, how="fast")
        self.at.pop(endpoint, None)
        self._write()

    def _lead(self, endpoint: str, zone: str) -> None:
        self.at[endpoint] = self._host(zone)[0]
        self._write()

    def _write(self) -> None:
        self.names.write_text("".join(f"{address} {endpoint}\n" for endpoint, address in sorted(self.at.items())), encoding="utf-8")

    def _host(self, zone: str) -> tuple[str, int]:
        return self.hosts[zone[-1]]

    def _ask(self, zone: str, operation: str, **request: Any) -> None:
        """:raises RuntimeError: the host could not do it; its words"""
        address, port = self._host(zone)
        asked = urllib.request.Request(f"http://{address}:{port}/{operation}", json.dumps(request).encode(), method="POST")
        try:
            with urllib.request.urlopen(asked, timeout=REQUEST_SECONDS):
                return
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{operation} in {zone}: {error.read().decode(errors='replace')}") from error


def beside(work: Callable[[], None]) -> None:
    """Have it happen while the service goes on answering."""
    threading.Thread(target=work, daemon=True).start()
