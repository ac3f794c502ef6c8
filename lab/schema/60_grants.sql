-- Who may do what.
SET ROLE freight_owner;
GRANT USAGE ON SCHEMA app TO PUBLIC;
GRANT USAGE ON SCHEMA "Büro Süd" TO freight_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO freight_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "Büro Süd" TO freight_app;
REVOKE DELETE ON app.invoices FROM freight_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA app TO freight_app;
GRANT UPDATE ON SEQUENCE app.dock_number TO freight_app;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO freight_reader;
GRANT SELECT ON app.shipments, app.customers, app.accounts TO freight_jobs;
GRANT SELECT, INSERT ON app.scan_log, app.sensor_readings TO freight_jobs WITH GRANT OPTION;
-- The batch role may change these columns and no others.
GRANT UPDATE (status, notes), SELECT (tracking) ON app.shipments TO freight_batch;
GRANT INSERT (title, body) ON app.documents TO freight_batch;
-- Every role that there is, and every role that there will be.
GRANT SELECT, INSERT, UPDATE ON app.settings TO PUBLIC;
GRANT SELECT, INSERT ON app."Größe" TO PUBLIC;
REVOKE EXECUTE ON PROCEDURE app.deliver(bigint, boolean) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE app.deliver(bigint, boolean) TO freight_app, freight_batch;
REVOKE USAGE ON TYPE app.money_amount FROM PUBLIC;
GRANT USAGE ON TYPE app.money_amount TO freight_app, freight_batch;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO freight_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO freight_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT USAGE ON SEQUENCES TO freight_app;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
RESET ROLE;
SET ROLE freight_admin;
GRANT SELECT ON audit.changes TO freight_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA audit GRANT SELECT ON TABLES TO freight_owner WITH GRANT OPTION;
RESET ROLE;
