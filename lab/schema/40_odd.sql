-- What old applications have too.
SET ROLE freight_owner;
SET search_path = app, public, extensions;

-- No primary key at all: the whole row is its identity, and the same row may be there twice.
CREATE TABLE scan_log (
    at timestamptz NOT NULL,
    place text,
    barcode text NOT NULL,
    ok boolean
);
ALTER TABLE scan_log REPLICA IDENTITY FULL;

-- No primary key, but a unique index that serves.
CREATE TABLE sensor_readings (
    sensor integer NOT NULL,
    at timestamptz NOT NULL,
    value double precision,
    raw bytea
);
CREATE UNIQUE INDEX sensor_readings_identity ON sensor_readings (sensor, at);
ALTER TABLE sensor_readings REPLICA IDENTITY USING INDEX sensor_readings_identity;

CREATE TABLE "Größe" (
    "größe_id" integer PRIMARY KEY,
    "Länge ""mm""" integer,
    "Straße %s" text DEFAULT 'ß%''"\'
);
CREATE TABLE "weird ""name"" %s; --" (
    "Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "select" text,
    "a b" text,
    "{{ x }}" jsonb
);
CREATE INDEX "weird index; drop table x" ON "weird ""name"" %s; --" ("a b");
CREATE TABLE "Büro Süd"."Überweisung" (
    "Nr." integer PRIMARY KEY,
    "Betrag €" numeric(12, 2),
    "user" text
);
CREATE SEQUENCE "Büro Süd"."Zähler ""A""" START 7;
CREATE TABLE "Select" ("From" integer PRIMARY KEY, "Where" text[]);

-- Row level security that is forced, so that its owner is held by it as well.
CREATE TABLE tenant_notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    note text NOT NULL
);
ALTER TABLE tenant_notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_notes FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenant_notes USING (tenant = current_setting('app.tenant', true));
CREATE POLICY readers ON tenant_notes AS PERMISSIVE FOR SELECT TO freight_reader USING (tenant <> 'secret');
CREATE POLICY never_empty ON tenant_notes AS RESTRICTIVE FOR INSERT WITH CHECK (note <> '');

-- Inheritance as it was before partitions.
CREATE TABLE announcements (
    id integer PRIMARY KEY,
    text text NOT NULL,
    "from" date NOT NULL DEFAULT current_date
);
CREATE TABLE urgent_announcements (
    until timestamptz,
    PRIMARY KEY (id)
) INHERITS (announcements);

-- Not replicated by anything: the assessment names it.
CREATE UNLOGGED TABLE session_cache (
    token text PRIMARY KEY,
    data jsonb,
    seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE empty_table (id integer PRIMARY KEY, what text);
CREATE TABLE numbers (
    id integer PRIMARY KEY,
    exact numeric,
    single real,
    twice double precision,
    cash money,
    flags bit varying(12)
);
RESET ROLE;

-- Another owner. Rows are written by a trigger.
SET ROLE freight_admin;
CREATE TABLE audit.changes (
    id bigserial PRIMARY KEY,
    relation regclass NOT NULL,
    operation text NOT NULL,
    changed_by text NOT NULL DEFAULT session_user,
    old_row jsonb,
    new_row jsonb,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE audit.retention (relation text PRIMARY KEY, keep interval NOT NULL DEFAULT '90 days');
RESET ROLE;
