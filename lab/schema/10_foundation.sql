-- Extensions, schemas, types, collations and unowned sequences of the freight application.
CREATE SCHEMA extensions;
GRANT USAGE ON SCHEMA extensions TO PUBLIC;
CREATE EXTENSION citext SCHEMA public;
CREATE EXTENSION pg_trgm SCHEMA extensions;
CREATE EXTENSION btree_gist SCHEMA extensions;

CREATE SCHEMA app AUTHORIZATION freight_owner;
CREATE SCHEMA audit AUTHORIZATION freight_admin;
CREATE SCHEMA "Büro Süd" AUTHORIZATION freight_owner;
COMMENT ON SCHEMA app IS 'Everything that the freight application sees; it''s 100% "hers"';

SET ROLE freight_owner;
SET search_path = app, public, extensions;

CREATE TYPE shipment_status AS ENUM ('new', 'collected', 'in transit', 'delivered', 'lost; found', 'zurück');
CREATE TYPE vehicle_kind AS ENUM ('van', 'truck', 'bike');
CREATE TYPE address AS (street text, postcode text, city text, country char(2));
CREATE TYPE money_amount AS (amount numeric(14, 2), currency char(3));
CREATE TYPE weight_range AS RANGE (subtype = numeric);
CREATE DOMAIN phone AS text CHECK (VALUE ~ '^\+[0-9 ]{6,20}$');
CREATE DOMAIN percentage AS numeric(5, 2) NOT NULL DEFAULT 0 CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN short_codes AS text[] CHECK (array_length(VALUE, 1) < 10);

CREATE COLLATION german (provider = icu, locale = 'de-DE-u-kn-true');
CREATE COLLATION without_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

-- Owned by no column: nothing but the catalog tells that they matter.
CREATE SEQUENCE invoice_number START 100001 CACHE 10;
CREATE SEQUENCE vehicle_number AS smallint MINVALUE 1 MAXVALUE 32000;
CREATE SEQUENCE gate_number AS smallint INCREMENT BY -1 MINVALUE -300 MAXVALUE -1 START -1 CYCLE;
CREATE SEQUENCE dock_number AS integer MINVALUE 10 MAXVALUE 99 START 10 CYCLE;
CREATE SEQUENCE never_used START 42;
COMMENT ON SEQUENCE gate_number IS 'counts down, and starts again at -1';
RESET ROLE;
