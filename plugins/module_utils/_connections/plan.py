# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What libpq and the servers say, as one sentence each. Pure: no I/O, no clock."""

from __future__ import annotations

import re
import typing as t

from .._core.problems import Problem
from .model import Answer, Service

# In this order, because a message about several hosts holds the words of each: what is furthest on the way in says most.
# The words are those of libpq 15 to 18, PostgreSQL 13 to 18 and PgBouncer; where they are others, the message itself is shown.
WORDS: tuple[tuple[str, str], ...] = (
    ("missing_database", r'database "[^"]*" does not exist|no such database'),
    ("wrong_password", r"authentication failed|no password supplied|no such user|not allowed"),
    ("tls_name", r"does not match host name"),
    ("tls_untrusted", r"certificate verify failed|self.signed certificate|unable to get (?:local )?issuer"),
    ("tls_absent", r"does not support SSL|SSL is not enabled"),
    ("refused_by_hba", r"pg_hba\.conf"),
    ("no_primary", r"session is read-only|in hot standby mode|is not in hot standby|read-write"),
    ("starting", r"the database system is|not yet accepting"),
    ("full", r"too many clients|too many connections|remaining connection slots|no more connections allowed"),
    ("refused", r"Connection refused"),
    ("silent", r"timeout expired|timed out|No route to host|Network is unreachable|Host is unreachable"),
    ("unknown_host", r"could not translate host name|Name or service not known|name resolution"),
)


def kind_of(message: str) -> str:
    """Which of WORDS a refused connection is; ``other`` where none fits."""
    return next((kind for kind, words in WORDS if re.search(words, message, re.IGNORECASE)), "other")


def explain(service: Service, message: str) -> Problem:
    """Why a service cannot be used, and what to do.

    :param message: of libpq or the server, in one line
    """
    kind = kind_of(message)
    what, remedy = words_for(kind, service, message)
    return Problem(kind, service.name, f"{service.title} {what}", remedy)


def words_for(kind: str, service: Service, message: str) -> tuple[str, str]:
    """The sentence's two halves after the service's title."""
    password = f"correct {service.password_key} or {service.user_key}"
    authority = "pg_ha_source_ca_file" if service.kind == "source" else "ca.crt in pg_ha_pki_dir"
    on_the_host = {
        "source": "start PostgreSQL there, or correct pg_ha_source_host and pg_ha_source_port",
        "target": "look at unit patroni on the hosts of the target, or run playbook provision.yml",
        "pooler": "look at unit pgbouncer there, or run playbook provision.yml",
    }[service.kind]
    database = {"source": "correct pg_ha_database", "target": "run playbook provision.yml", "pooler": "let port and host be those of a PgBouncer"}[service.kind]
    certificate = {
        "source": "give the CA that signed it, or renew the certificate if it has expired",
        "target": "run playbook provision.yml, or give the CA that signed it",
        "pooler": "run playbook provision.yml, or give the CA that signed it",
    }[service.kind]
    table = {
        "missing_database": (f"has no database {service.database}", database),
        "wrong_password": (f"refuses the password of role {service.user}", password),
        "tls_name": ("shows a certificate for another name", f"use the name that stands in the certificate ({service.host_key}), or renew the certificate"),
        "tls_untrusted": (f"shows a certificate that {authority} does not verify", certificate),
        "tls_absent": ("does not offer TLS", "set ssl = on there, with a certificate for its name; a password never travels in the clear"),
        "refused_by_hba": (
            f"has no line in pg_hba.conf that lets role {service.user} in from the mover",
            "add hostssl … scram-sha-256 for the mover's address",
        ),
        "no_primary": ("has no primary", "wait until its cluster has a leader (patronictl list)" if service.kind == "target" else "name the primary"),
        "starting": ("is starting or stopping", "wait until it is up, then run this again"),
        "full": ("has no connection left", "raise max_connections, or end sessions"),
        "refused": ("refuses the connection, because nothing listens there", on_the_host),
        "silent": ("does not answer", f"correct {service.host_key}, or let the mover through the firewall"),
        "unknown_host": ("has a name that the mover cannot resolve", f"correct {service.host_key}, or make the name known on the mover"),
    }
    return table.get(kind, (f"refuses us ({message.rstrip('.')})", f"mend that, or correct {service.host_key}"))


def plan_answers(answers: dict[Service, Answer], clock_skew_seconds: float) -> t.Iterator[Problem]:
    """What is wrong although everybody answers."""
    for service, answer in answers.items():
        if abs(answer.ahead_seconds) - answer.blur_seconds > clock_skew_seconds:
            word = "ahead of" if answer.ahead_seconds > 0 else "behind"
            message = f"The clock of the {service.kind} is {abs(answer.ahead_seconds):.1f} s {word} the mover's, and {clock_skew_seconds:g} s are allowed"
            yield Problem(
                "clock_skew", service.name, message, "let both follow the same time servers (chrony, systemd-timesyncd), or set mover_clock_skew_seconds"
            )
    by_kind = {service.kind: answer for service, answer in answers.items()}
    source, target = by_kind.get("source"), by_kind.get("target")
    if source is not None and target is not None and source.system_identifier == target.system_identifier:
        message = f"Source and target are the same server (system identifier {source.system_identifier})"
        yield Problem("source_is_target", "pg_ha_source_host", message, "let pg_ha_source_host name the server that serves the application today")


def strange_problem(message: str, remedy: str) -> Problem | None:
    """The journal of the target says another migration, or another source; "" is no problem."""
    return Problem("wrong_inventory", "pg_ha_migration", message, remedy) if message else None


def pooler_problem(service: Service, pooled: dict[str, t.Any] | None, database: str) -> Problem | None:
    """What keeps a pooler whose console answers from holding clients."""
    if pooled is None:
        return Problem("pooler_database", service.name, f"The pooler {service.host} knows no database {database}", "run playbook provision.yml")
    if pooled["pool_mode"] == "transaction":
        return None
    message = f"The pooler {service.host} runs {database} in {pooled['pool_mode']} mode, in which PAUSE waits for every client to leave"
    return Problem("pool_mode", service.name, message, "set pool_mode = transaction there")


def patroni_problem(urls: t.Sequence[str], message: str) -> Problem:
    """No member of Patroni's answers."""
    reason = "" if kind_of(message) == "other" else f" ({kind_of(message).replace('_', ' ')})"
    return Problem(
        "patroni",
        "pg_ha_patroni",
        f"Patroni's REST API answers on none of {', '.join(urls)}{reason}",
        "look at unit patroni there, and let the mover through the firewall",
    )
