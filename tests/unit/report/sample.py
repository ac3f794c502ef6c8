# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of one migration, every document as its schema wants it."""

from __future__ import annotations

import copy
import datetime
import math
import typing as t

HOSTS = {"source": ["db"], "poolers": ["lb1"], "proxies": ["lb1"], "members": ["pg1", "pg2", "pg3"], "store": ["etcd1", "etcd2", "etcd3"], "mover": ["mover"]}
# A managed service has no host of ours behind the poolers, and one name.
RDS_HOSTS = {**HOSTS, "proxies": [], "members": [], "store": []}
RDS_ENDPOINT = {"host": "freight-rds.c3v8aquz5xk1.eu-central-1.rds.amazonaws.com", "port": 5432}
BEGIN = datetime.datetime(2027, 1, 1, 2, 0, tzinfo=datetime.UTC)


def at(seconds: float) -> str:
    """So many seconds after the beginning."""
    return (BEGIN + datetime.timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def times(name: str, begin: float, end: float) -> dict[str, str]:
    """What every document has."""
    return {"schema": f"freight.pg_ha/{name}/1", "started_at": at(begin), "finished_at": at(end), "outcome": "done"}


def timeline(begin: float, parts: int, length: float, silent: range, errors: int = 0) -> list[dict[str, t.Any]]:
    """Parts of equal length; in some of them nothing is acknowledged."""
    return [
        {
            "at": at(begin + number * length),
            "acknowledged": 0 if number in silent else round(200 * length + 3 * math.sin(number)),
            "errors": errors if number in silent else 0,
            "latency_max_ms": 0.0 if number in silent else (len(silent) * length * 1000 if number == silent.stop else 6.0 + number % 3),
        }
        for number in range(parts)
    ]


def scenario(name: str, title: str, rto_ms: float, budget_ms: int, *, repeat: int = 1, **changed: t.Any) -> dict[str, t.Any]:
    """One run of one scenario."""
    gone = math.ceil(rto_ms / 1000) if rto_ms >= 500 else 0
    layers = {"server": rto_ms * 0.8, "route": rto_ms * 0.9, "pooler": rto_ms * 0.95} if gone else dict.fromkeys(("server", "route", "pooler"))
    return {
        "name": name, "title": title, "repeat": repeat, "hit": ["pg1"], "struck_s": [0.3], "route": "pooler", "rto_ms": rto_ms,
        "layers_ms": {**layers, "client": rto_ms},
        "name_moved_ms": None, "service": None, "replicas_gap_ms": 12.0, "rpo_lost": 0, "duplicated": 0,
        "unknown": {"total": 2, "committed": 1, "not_committed": 1}, "acknowledged": 4321,
        "client_errors": 4 if gone else 0, "client_errors_by_class": {"57P01": 4} if gone else {}, "two_writers": [],
        "writers": ["pg1", "pg2"] if gone else ["pg1"], "timelines": [1, 2] if gone else [1], "redundancy_restored_s": 12.5, "caught_up_s": None,
        "budget_ms": budget_ms,
        "passed": True,
        "reasons": [], "timeline": timeline(1000, 30, 1.0, range(8, 8 + gone), 2), **changed,
    }  # fmt: skip


def killed(repeat: int, rto_ms: float) -> dict[str, t.Any]:
    """One of several runs of the same scenario."""
    return scenario("postmaster_killed", "SIGKILL for the leader's postmaster", rto_ms, 5000, repeat=repeat)


TABLES = [
    ("app.shipments", 90_000_000, 0.4, 5.2),
    ("app.events", 30_000_000, 0.5, 2.6),
    ('app."Größe"', 8192, 2.7, 2.71),
    ("app.customers", 2_000_000, 2.8, 3.4),
]

EVIDENCE: dict[str, t.Any] = {
    "assessment": {
        **times("assessment", 0, 4), "fingerprint": "0" * 64, "method": "logical",
        "findings": [
            {"id": "large_objects", "severity": "warning", "object": "pg_largeobject", "message": "3 large objects.", "fix": "", "accepted": False},
            {"id": "event_trigger", "severity": "info", "object": "e", "message": "Fires.", "fix": "ALTER EVENT TRIGGER e DISABLE;", "accepted": False},
        ],
        "facts": {
            "version": "PostgreSQL 15.1", "version_num": 150001, "target_version_num": None, "database": "freight", "bytes": 200 << 20, "encoding": "UTF8",
            "collate": "C.UTF-8", "ctype": "C.UTF-8", "tables": 25, "partitions": 4, "rows_estimate": 1000, "largest_tables": [], "materialized_views": 0,
            "sequences": 12, "large_objects": 3, "large_object_bytes": 8192, "extensions": {}, "settings": {}, "administrator_is_superuser": True,
        },
    },
    "topology": {
        **times("topology", 60, 150),
        "target": {
            "kind": "patroni", "members": ["pg1", "pg2", "pg3"], "write_endpoint": {"host": "lb1", "port": 5000},
            "read_endpoint": {"host": "lb1", "port": 5001},
            "administrator_is_superuser": True, "slots_survive_failover": True,
        },
    },
    "replication": {
        **times("replication", 160, 175), "method": "logical", "rehearsal": False, "bytes": 122_008_192, "rows": 1000, "tables": 25, "sequences": 12,
        "large_objects": 3, "unlogged": [], "seconds": 6.2, "bytes_per_second": 19_678_740, "jobs": 2,
        "steps": [{"name": "snapshot", "seconds": 0.1}, {"name": "rows", "seconds": 5.2}, {"name": "rest_of_schema", "seconds": 0.9}],
        "by_table": [{"table": name, "rows": size // 100, "bytes": size, "from_s": begin, "to_s": end} for name, size, begin, end in TABLES],
        "resumed": None, "not_resumed": None, "lag_bytes": 0,
        "lag": [{"seconds": number * 0.2, "bytes": round(5e6 * math.exp(-number / 4))} for number in range(20)] + [{"seconds": 4.0, "bytes": 0}],
        "roles": {"moved": ["app"], "skipped": {}, "without_password": [], "old_password_method": [], "not_possible": []},
    },
    "parity": {
        **times("parity", 180, 183), "run": "r", "tables": 25, "rows": 1000, "sequences": 12, "mismatches": [], "notes": [],
        "not_compared": [{"object": "materialized view app.v", "reason": "is filled by REFRESH on the target"}],
        "fingerprint": {side: {"sha256": "0" * 64, "objects": 5, "major": major} for side, major in (("source", 15), ("target", 17))},
        "serves": "source", "following": True, "seconds": 2.2, "bytes": 114_548_736, "chunks": 43, "sequences_behind": [], "large_objects": 3, "hold_ms": 8.0,
        "hold_attempts": 1, "system_identifier": "1", "timeline": 1,
        **{side: {"system_identifier": "1", "timeline": 1, "lsn": "0/1"} for side in ("source", "target")},
        "by_table": [{"table": name, "rows": size // 100, "chunks": 1, "seconds": 0.1} for name, size, _begin, _end in TABLES],
    },
    "failover": {
        **times("failover", 600, 1500), "serves": "target", "trouble": None,
        "scenarios": [
            scenario("switchover", "Planned switchover behind the poolers", 2510.0, 3000, client_errors=0, client_errors_by_class={}),
            *(killed(repeat, rto) for repeat, rto in enumerate((1028.0, 990.0, 1400.0), 1)),
            scenario("leader_off", "The leader's host loses its power", 20746.0, 30000),
            scenario("store_lost", "etcd has no quorum", 77.0, 1000),
        ],
    },
    "cutover": {
        **times("cutover", 200, 240), "serves": "target", "epoch": 3, "write_pause_ms": 42.5, "longest_client_stall_ms": 88, "critical_section_ms": 61,
        "paused_at": BEGIN.timestamp() + 220, "method": "logical", "initial_copy": None,
        "steps": [{"name": "pause", "ms": 9.5}, {"name": "fence", "ms": 3}, {"name": "barrier", "ms": 21.4}],
        "way_back": {"link": "ha_migration_reverse", "follows": True, "problem": None, "standbys_without": []},
        "client": {
            "acknowledged": 12345, "errors": 0, "lost": 0, "duplicated": 0, "unknown": {"total": 0, "committed": 0, "not_committed": 0},
            "latency_ms": {"p50": 3.1, "p95": 6.2, "p99": 9.0, "max": 88.0}, "timeline": timeline(210, 200, 0.1, range(100, 101)),
        },
        "sessions_ended": {}, "refused_writes": {"app": 25},
    },
    "routes": {
        **times("routes", 240, 241), "serves": "target",
        "sides": {
            "source": {
                "directory": "/pki/routes/move/source", "write_endpoint": {"hosts": ["db"], "port": 5432}, "read_endpoint": {"hosts": ["db"], "port": 5432},
                "roles": [{"name": "app", "password": "not_known", "files": ["app/database.env"], "as_declared": False}],
            },
            "target": {
                "directory": "/pki/routes/move/target", "write_endpoint": {"hosts": ["lb1", "lb2"], "port": 6432},
                "read_endpoint": {"hosts": ["lb1"], "port": 5001},
                "roles": [{"name": "app", "password": "written", "files": ["app/ca.crt", "app/database.env"], "as_declared": True}],
            },
        },
    },
    "retirement": {},
}  # fmt: skip


def evidence(**changed: t.Any) -> dict[str, t.Any]:
    """All of it, with documents exchanged."""
    return {**copy.deepcopy(EVIDENCE), **changed}


def forced_failover(repeat: int, rto_ms: float, moved_ms: float | None = 10_000.0, **changed: t.Any) -> dict[str, t.Any]:
    """One run of the failover that a service is asked for, and what the service says of it by its own clock."""
    said = [(1008.2, "Multi-AZ instance failover started."), (1019.0, "DB instance restarted"), (1020.4, "Multi-AZ instance failover completed")]
    events = [{"at": (BEGIN + datetime.timedelta(seconds=seconds)).isoformat(), "message": words} for seconds, words in said]
    service = {"started_at": events[0]["at"], "completed_at": events[-1]["at"], "service_seconds": 12.2, "events": events}
    told = {"hit": [], "struck_s": [0.2], "writers": [RDS_ENDPOINT["host"]], "timelines": [1], "name_moved_ms": moved_ms, "service": service, **changed}
    return scenario("forced_failover", "The service fails over to its standby in another zone", rto_ms, 60000, repeat=repeat, **told)


def rds(**changed: t.Any) -> dict[str, t.Any]:
    """The same migration to Amazon RDS."""
    topology = document("topology")
    ends = {"write_endpoint": RDS_ENDPOINT, "read_endpoint": RDS_ENDPOINT}
    topology["target"] = {**topology["target"], "kind": "rds", "members": ["freight-rds"], "administrator_is_superuser": False, **ends}
    runs = [forced_failover(1, 13_800.0), forced_failover(2, 15_200.0, 11_400.0), scenario("pgbouncer_killed", "SIGKILL for PgBouncer", 1474.0, 10000)]
    return evidence(**{"topology": topology, "failover": document("failover", scenarios=runs), **changed})


def nothing() -> dict[str, t.Any]:
    """Of a migration that has not begun."""
    return {name: {} for name in EVIDENCE}


def document(name: str, **changed: t.Any) -> dict[str, t.Any]:
    """One document with something changed."""
    return {**copy.deepcopy(EVIDENCE[name]), **changed}
