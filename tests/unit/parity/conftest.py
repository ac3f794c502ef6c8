# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two databases of one server, linked by logical replication as the collection links them."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import schema
from ansible_collections.freight.pg_ha.plugins.module_utils._parity import names
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

APPLICATION = '''
CREATE SCHEMA "Größe ""x""";
CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN public.positive AS integer CHECK (VALUE > 0);
CREATE TYPE public.place AS (street text, number integer);
CREATE TYPE public.span AS RANGE (subtype = float8);
CREATE TABLE public.account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text NOT NULL DEFAULT 'nobody', balance numeric(12, 2) NOT NULL DEFAULT 0 CHECK (balance >= 0),
    mood public.mood, at timestamptz NOT NULL DEFAULT now(), note jsonb, twice numeric GENERATED ALWAYS AS (balance * 2) STORED, where_to public.place);
CREATE UNIQUE INDEX ON public.account (owner, id) WHERE balance > 0;
CREATE TABLE public.entry (id uuid PRIMARY KEY, account bigint REFERENCES public.account, amount float8, tags text[], span public.span);
CREATE TABLE "Größe ""x"""."Tabelle 'y' %s \\" ("Schlüssel %%" text PRIMARY KEY, "Wert" bytea);
CREATE TABLE public.keyless (a integer, b text);
ALTER TABLE public.keyless REPLICA IDENTITY FULL;
CREATE TABLE public.empty_one (id integer PRIMARY KEY);
CREATE TABLE public.pair (a integer, b text, c text, PRIMARY KEY (a, b));
CREATE TABLE public.event (id bigint, day date NOT NULL, what text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE public.event_2025 PARTITION OF public.event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE public.event_2026 PARTITION OF public.event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE UNLOGGED TABLE public.scratch (id integer);
CREATE SEQUENCE public.loose AS smallint INCREMENT -1 CYCLE;
CREATE VIEW public.rich WITH (security_barrier) AS SELECT id, owner FROM public.account WHERE balance > 1000;
CREATE MATERIALIZED VIEW public.totals AS SELECT count(*) FROM public.account;
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON public.account FOR EACH ROW EXECUTE FUNCTION public.touch();
ALTER TABLE public.pair ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.pair FOR SELECT USING (b = current_user);
GRANT SELECT ON public.account TO PUBLIC;
'''

ROWS = '''
INSERT INTO public.account (owner, balance, mood, note, where_to)
    SELECT 'owner ' || i, i, (ARRAY['sad', 'ok', 'happy'])[1 + i %% 3]::public.mood, jsonb_build_object('i', i), ROW('street', i)::public.place
    FROM generate_series(1, 3000) i;
INSERT INTO public.entry SELECT md5(i::text)::uuid, 1 + i %% 3000, random() * i, ARRAY['a', NULL, i::text],
    public.span(i, i + 0.1) FROM generate_series(1, 2000) i;
INSERT INTO "Größe ""x"""."Tabelle 'y' %%s \\" SELECT 'k''ey ' || i, ('\\x' || lpad(to_hex(i), 8, '0'))::bytea FROM generate_series(1, 50) i;
INSERT INTO public.keyless SELECT i %% 10, CASE WHEN i %% 7 = 0 THEN NULL ELSE '' END FROM generate_series(1, 500) i;
INSERT INTO public.pair SELECT i, 'b' || i, repeat('x', i) FROM generate_series(1, 100) i;
INSERT INTO public.event SELECT i, '2025-12-01'::date + i %% 60, 'what ' || i FROM generate_series(1, 1000) i;
'''.replace("%%", "%")


class Pair:
    """A linked pair of databases."""

    def __init__(self, service_file: str) -> None:
        self.service_file = service_file
        self.source = self.open("source")
        self.target = self.open("target")

    def open(self, side: str, settings: dict[str, str] | None = None) -> t.Any:
        """An autocommit session on a side."""
        return client.connect(self.service_file, side, application_name=names.APPLICATION_NAME, settings=settings)

    def on(self, side: str, statement: str, parameters: t.Any = None) -> list[dict[str, t.Any]]:
        """Run a statement on a side."""
        return client.query(getattr(self, side), statement, parameters)

    def behind_its_back(self, statement: str) -> None:
        """Change the target as nothing should: past every trigger."""
        self.on("target", f"SET session_replication_role = replica; {statement}; RESET session_replication_role")

    def wait_for_link(self) -> None:
        """Until what is committed on the source is on the target."""
        name = f"test {time.monotonic_ns()}"
        self.on("source", f"INSERT INTO {names.MARKER_TABLE} (id) VALUES (%s)", (name,))
        deadline = time.monotonic() + 20
        while not self.on("target", f"SELECT FROM {names.MARKER_TABLE} WHERE id = %s", (name,)):
            if time.monotonic() > deadline:
                raise TimeoutError("the link does not work")
            time.sleep(0.01)


@pytest.fixture(scope="module")
def pair(postgresql_server: t.Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> t.Iterator[Pair]:
    """The application on both sides, its rows replicated, both guards' schema in place."""
    tag = request.module.__name__.rsplit("_", 1)[-1]
    databases = {side: f"parity_{tag}_{side}" for side in ("source", "target")}
    for database in databases.values():
        postgresql_server.create_database(database)
    path: pathlib.Path = tmp_path_factory.mktemp("parity") / "pg_service.conf"
    linked = Pair(postgresql_server.services(path, **databases))
    for side in ("source", "target"):
        schema.ensure_schema(getattr(linked, side))
        linked.on(side, APPLICATION)
    tables = [
        row["name"]
        for row in linked.on(
            "source",
            "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ha_migration')",
        )
    ]
    linked.on("source", f"CREATE PUBLICATION {names.FORWARD_LINK} FOR TABLE {', '.join(tables)}, ha_migration.marker, ha_migration.probe")
    slot = f"parity_{tag}"
    linked.on("source", "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    connection = f"host=127.0.0.1 port={postgresql_server.port} user=postgres dbname={databases['source']}"
    linked.on(
        "target",
        f"CREATE SUBSCRIPTION {names.FORWARD_LINK} CONNECTION '{connection}' PUBLICATION {names.FORWARD_LINK} "
        f"WITH (create_slot = false, slot_name = '{slot}', copy_data = false, synchronous_commit = on)",
    )
    linked.on("source", ROWS)
    linked.wait_for_link()
    try:
        yield linked
    finally:
        linked.on("target", f"DROP SUBSCRIPTION {names.FORWARD_LINK}")
        linked.source.close()
        linked.target.close()
