-- Roles of the freight application. Passwords are set by lab/source.yml.
CREATE ROLE freight_owner LOGIN;
CREATE ROLE freight_admin LOGIN CREATEROLE;
CREATE ROLE freight_app LOGIN CONNECTION LIMIT 150;
-- Has no grant of its own: what it may do, PUBLIC may.
CREATE ROLE freight_guest LOGIN;
CREATE ROLE freight_reader LOGIN VALID UNTIL '2099-12-31';
CREATE ROLE freight_jobs NOLOGIN NOINHERIT;
CREATE ROLE freight_batch LOGIN IN ROLE freight_jobs;
-- The pooler asks for passwords as this role, and may do nothing else.
CREATE ROLE pgbouncer_auth LOGIN;
CREATE ROLE ha_admin LOGIN SUPERUSER;

GRANT freight_owner TO freight_admin WITH ADMIN OPTION;
ALTER ROLE freight_app SET search_path = app, public, extensions;
ALTER ROLE freight_app SET statement_timeout = '30s';
ALTER ROLE freight_app SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE freight_reader SET default_transaction_read_only = on;
COMMENT ON ROLE freight_jobs IS 'What batch jobs may do';
