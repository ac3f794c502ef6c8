-- Functions, procedures, triggers, rules and views.
SET ROLE freight_owner;
SET search_path = app, public, extensions;

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$body$;
CREATE TRIGGER accounts_touch BEFORE UPDATE ON accounts FOR EACH ROW WHEN (OLD.holder IS DISTINCT FROM NEW.holder) EXECUTE FUNCTION touch();

CREATE FUNCTION gross_weight(kg numeric, packing numeric DEFAULT 0.35) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN kg + packing;
CREATE FUNCTION customers_of("größe" integer) RETURNS SETOF customers LANGUAGE sql STABLE ROWS 10
    BEGIN ATOMIC
        SELECT * FROM customers WHERE length(name) = "größe";
    END;
CREATE FUNCTION longer(a text, b text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT CASE WHEN length(a) >= length(b) THEN a ELSE b END $$;
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text);
CREATE OPERATOR ~~> (LEFTARG = text, RIGHTARG = text, FUNCTION = longer);
CREATE PROCEDURE deliver(shipment bigint, INOUT done boolean DEFAULT false) LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS $$
BEGIN
    UPDATE shipments SET status = 'delivered' WHERE id = shipment;
    done := FOUND;
END
$$;

CREATE VIEW open_shipments WITH (security_barrier = true) AS
    SELECT id, created_on, customer_id, status, gross_weight(weight_kg) AS gross_kg FROM shipments WHERE status NOT IN ('delivered', 'lost; found')
    WITH LOCAL CHECK OPTION;
CREATE VIEW customer_names (id, "full name") AS SELECT id, display_name FROM customers;
CREATE RECURSIVE VIEW chain_of_command (id, boss_id, depth) AS
    SELECT id, boss_id, 0 FROM employees WHERE boss_id IS NULL
    UNION ALL SELECT e.id, e.boss_id, c.depth + 1 FROM employees e JOIN chain_of_command c ON e.boss_id = c.id;
CREATE FUNCTION rename_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE customers SET first_name = NEW."full name", last_name = NULL WHERE id = OLD.id;
    RETURN NEW;
END
$$;
CREATE TRIGGER rename INSTEAD OF UPDATE ON customer_names FOR EACH ROW EXECUTE FUNCTION rename_customer();
CREATE RULE no_delete AS ON DELETE TO settings DO INSTEAD NOTHING;

CREATE MATERIALIZED VIEW customer_turnover AS
    SELECT customer_id, count(*) AS invoices, sum(net) AS net FROM invoices GROUP BY customer_id
    WITH NO DATA;
CREATE UNIQUE INDEX customer_turnover_customer ON customer_turnover (customer_id);
CREATE MATERIALIZED VIEW not_refreshed AS SELECT 1 AS one WITH NO DATA;
RESET ROLE;

SET ROLE freight_admin;
CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = audit, pg_temp AS $$
BEGIN
    INSERT INTO audit.changes (relation, operation, old_row, new_row)
    VALUES (TG_RELID, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$$;
GRANT USAGE ON SCHEMA audit TO freight_owner;
RESET ROLE;
SET ROLE freight_owner;
CREATE TRIGGER "audit; settings" AFTER INSERT OR UPDATE OR DELETE ON app.settings FOR EACH ROW EXECUTE FUNCTION audit.record();
CREATE TRIGGER audit_tariffs AFTER INSERT OR UPDATE OR DELETE ON app.tariffs FOR EACH ROW EXECUTE FUNCTION audit.record();
ALTER TABLE app.tariffs DISABLE TRIGGER audit_tariffs;
CREATE FUNCTION app.check_manager() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM app.employees WHERE id = NEW.manager_id AND depot_id = NEW.id) THEN
        RAISE EXCEPTION 'the manager of depot % does not work there', NEW.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER manager_works_there AFTER INSERT OR UPDATE ON app.depots DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.manager_id IS NOT NULL) EXECUTE FUNCTION app.check_manager();
RESET ROLE;
