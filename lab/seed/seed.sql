-- Data of the freight application, the same in every lab of the same size. psql variable scale: 1 makes a database of about 200 MB.
-- The schema has to be there and empty; everything here is one transaction of the caller's.
SET search_path = app, public, extensions;
SET LOCAL synchronous_commit = off;
SET LOCAL work_mem = '64MB';

INSERT INTO accounts (id, balance, holder, changed_at)
SELECT i, CASE WHEN i <= 1000 THEN i ELSE 0 END, 'holder ' || i, timestamptz '2025-06-01 00:00+00' + i * interval '1 second' FROM generate_series(1, 100000) i;
INSERT INTO ledger (client, seq, account_id, amount, note, created_at)
SELECT -1, i, i, i, 'opening balance', timestamptz '2025-06-01 00:00+00' + i * interval '1 second' FROM generate_series(1, 1000) i;

INSERT INTO events (at, account_id, kind, payload)
SELECT timestamptz '2025-07-01 00:00+00' + i * interval '7 minutes' / :scale,
       CASE WHEN i % 3 > 0 THEN 1 + i % 100000 END,
       (ARRAY['login', 'note', 'scan', 'ärger'])[1 + i % 4],
       jsonb_build_object('n', i, 'text', md5(i::text), 'list', jsonb_build_array(i % 7, NULL, true), 'ü"\', '{}'::jsonb)
FROM generate_series(1, (100000 * :scale)::integer) i;
INSERT INTO events (at, kind) VALUES ('2019-01-01', 'far away'), ('2030-01-01', 'later'), ('infinity', 'never');

INSERT INTO customers (name, email, phone, billing, discount, labels, attributes, first_name, last_name, credit_limit, created_at)
SELECT (ARRAY['Müller', 'O''Neill', 'Søren', '李', 'Smith', E'Tab\tNew\nLine', 'back\slash'])[1 + i % 7] || ' ' || substr(md5(i::text), 1, 8),
       CASE WHEN i % 11 > 0 THEN 'Customer' || i || '@Example.org' END,
       CASE WHEN i % 5 > 0 THEN '+49 ' || lpad(i::text, 8, '0') END,
       CASE WHEN i % 4 > 0 THEN ROW('Straße "' || i % 300 || '"', lpad((i % 99999)::text, 5, '0'), NULL, 'DE')::address END,
       i % 31, CASE WHEN i % 3 = 0 THEN ARRAY['vip', 'comma,quote"', NULL] ELSE '{}' END,
       jsonb_build_object('tier', i % 4, 'tags', jsonb_build_array('a' || i % 10, 1.50), 'none', NULL),
       'First' || i % 97, CASE WHEN i % 13 > 0 THEN 'Last' || i % 1009 END,
       CASE WHEN i % 6 = 0 THEN ROW(i * 1.25, 'EUR')::money_amount END,
       timestamptz '2025-01-01 00:00+00' + i * interval '11 minutes'
FROM generate_series(1, (20000 * :scale)::integer) i;

INSERT INTO carriers (code, nick, kinds, rating, founded)
SELECT (ARRAY['ä', 'a', 'Z', 'z', 'ß', 'ss', 'Ö'])[1 + i % 7] || i, 'Nick' || i, ARRAY['van', 'bike']::vehicle_kind[], (ARRAY[0.1, 'NaN', 'Infinity', 3.3333333])[1 + i % 4]::real,
       CASE i % 20 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '0044-03-15 BC'::date ELSE date '1900-01-01' + i * 100 END
FROM generate_series(1, 150) i;

INSERT INTO depots (name, location, opening, docks, network)
SELECT 'Depot ' || i, point(i * 1.1, -i / 3.0), int4range(6, 18 + i % 4), B'10110010', ('10.' || i || '.0.0/16')::cidr FROM generate_series(1, 40) i;
INSERT INTO employees (name, depot_id, badge, salary, shift, photo)
SELECT 'Employee ' || i, 1 + i % 40, md5('badge' || i)::uuid, 2000 + i % 977 + 0.5, tstzrange('2026-01-01 06:00+00', '2026-01-01 14:00+00', '[)'), decode(md5(i::text), 'hex')
FROM generate_series(1, 400) i;
UPDATE employees SET boss_id = 1 + 5 * (id % 11) WHERE id > 60;
UPDATE depots d SET manager_id = (SELECT min(id) FROM employees e WHERE e.depot_id = d.id);
INSERT INTO vehicles (depot_id, kind, plate, payload, codes, mac)
SELECT 1 + i % 40, (ARRAY['van', 'truck', 'bike'])[1 + i % 3]::vehicle_kind, 'HH-XY ' || i, weight_range(i, i + 1000.5, '[]'), ARRAY['c' || i], ('08:00:2b:01:02:' || lpad(to_hex(i % 256), 2, '0'))::macaddr
FROM generate_series(1, 500) i;
INSERT INTO dock_bookings (depot_id, during)
SELECT 1 + i % 40, tstzrange(timestamptz '2026-01-01 00:00+00' + i * interval '1 hour', timestamptz '2026-01-01 00:00+00' + (i + 1) * interval '1 hour') FROM generate_series(1, 2000) i;
INSERT INTO tariffs (zone, weight, price)
SELECT chr(65 + z) || 'X', weight_range(w * 10, w * 10 + 10), ROW(w * 2.5 + z, 'EUR')::money_amount FROM generate_series(0, 9) z, generate_series(0, 29) w;

-- These refer to what the formulas make: checking it row by row would take longer than making it.
SET LOCAL session_replication_role = replica;
INSERT INTO shipments (created_on, customer_id, carrier_code, status, weight_kg, volume, origin, destination, tracking, notes, history)
SELECT date '2025-06-01' + (i::bigint * 540 / (200000 * :scale)::integer)::integer, 1000 + i % (20000 * :scale)::integer, (ARRAY['ä', 'a', 'Z', 'z', 'ß', 'ss', 'Ö'])[1 + (1 + i % 150) % 7] || (1 + i % 150),
       (ARRAY['new', 'collected', 'in transit', 'delivered', 'lost; found', 'zurück'])[1 + i % 6]::shipment_status,
       0.001 + i % 30000 / 7.0, CASE WHEN i % 5 > 0 THEN sqrt(i) END,
       ROW('Street ' || i % 100, '20095', 'Hamburg', 'DE')::address, NULL,
       upper(substr(md5('t' || i), 1, 12)), CASE WHEN i % 10 = 0 THEN repeat('note ', i % 20) END,
       CASE WHEN i % 4 = 0 THEN ARRAY[timestamptz '2026-01-01 12:00+00', NULL, 'infinity'] ELSE '{}' END
FROM generate_series(1, (200000 * :scale)::integer) i;
INSERT INTO shipment_items (shipment_id, shipment_on, line, article, quantity, unit_price)
SELECT s.id, s.created_on, l, 'article ' || (s.id * l) % 500, 1 + s.id % 9, 0.0001 + (s.id % 1000) / 3.0 FROM shipments s, generate_series(1, 2) l WHERE s.id % 2 = 0;
SET LOCAL session_replication_role = origin;

INSERT INTO parcels (id, region, barcode, dimensions, contents)
SELECT i, (ARRAY['north', 'north-east', 'south', 'Süden', 'it''s 50% off', 'nowhere'])[1 + i % 6], upper(md5('b' || i)), ARRAY[i % 100, i % 60, 3],
       CASE WHEN i % 2 = 0 THEN jsonb_build_object('items', i % 5, 'fragile', i % 7 = 0) END
FROM generate_series(1, (100000 * :scale)::integer) i;

INSERT INTO invoices (customer_id, issued_on, net, tax_percent, paid, reference)
SELECT 1000 + i % (20000 * :scale)::integer, date '2026-01-01' + i % 300, i % 9973 + 0.99, (i % 2) * 12 + 7, i % 3 > 0, CASE WHEN i % 4 > 0 THEN 'ref ' || i END
FROM generate_series(1, (20000 * :scale)::integer) i;
INSERT INTO payments (id, invoice_number, amount, took, at_local, at_time, remote, document)
SELECT md5('p' || number)::uuid, number, ROW(net, 'EUR')::money_amount, net * interval '1 second', issued_on + time '12:34:56.789', timetz '08:00+02', ('192.0.2.' || number % 256)::inet,
       CASE WHEN number % 50 = 0 THEN xmlparse(DOCUMENT '<paid n="' || number || '">&amp;</paid>') END
FROM invoices WHERE paid;

INSERT INTO documents (title, body) SELECT 'Document ' || i, repeat(md5('d' || i) || ' ', 20 + i % 200) FROM generate_series(1, (2000 * :scale)::integer) i;
-- Large objects: empty, one byte, just over a page of them, and two of some size.
UPDATE documents d SET file = lo_from_bytea(0, CASE d.id WHEN 1 THEN '' WHEN 2 THEN '\x00' WHEN 3 THEN decode(repeat('00ff', 1025), 'hex')
    ELSE decode(repeat(md5(d.id::text), (d.id * 8192)::integer), 'hex') END) WHERE d.id <= 12;
DO $$
DECLARE
    file oid;
BEGIN
    FOR file IN SELECT d.file FROM app.documents d WHERE d.file IS NOT NULL LOOP
        EXECUTE format('ALTER LARGE OBJECT %s OWNER TO freight_owner', file);
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO freight_app', file);
    END LOOP;
    EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', file, 'the last one');
EXCEPTION WHEN null_value_not_allowed OR syntax_error THEN
    NULL;
END
$$;

INSERT INTO settings (key, value, changed_by) SELECT 'key ' || i, to_jsonb(ARRAY[i, i * 2]), 'seed' FROM generate_series(1, 50) i;
UPDATE settings SET value = '{"a": [1, 2.0, "x"]}' WHERE key = 'key 7';

INSERT INTO scan_log (at, place, barcode, ok)
SELECT timestamptz '2026-01-01 00:00+00' + i / 2 * interval '1 second', CASE WHEN i % 9 > 0 THEN 'gate ' || i % 30 END, upper(md5((i / 2)::text)), CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END
FROM generate_series(1, (60000 * :scale)::integer) i;
INSERT INTO scan_log SELECT '2026-01-01 00:00+00', NULL, 'TWICE', NULL FROM generate_series(1, 3);
INSERT INTO sensor_readings (sensor, at, value, raw)
SELECT i % 50, timestamptz '2026-02-01 00:00+00' + i * interval '1 second', CASE i % 1000 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN '-0' ELSE sin(i) END, decode(md5(i::text), 'hex')
FROM generate_series(1, (80000 * :scale)::integer) i;

INSERT INTO "Größe" SELECT i, CASE WHEN i % 2 = 0 THEN i * 10 END FROM generate_series(1, 300) i;
INSERT INTO "weird ""name"" %s; --" ("select", "a b", "{{ x }}") SELECT repeat('%s', i % 5), E'\\N', '{"{{": "%"}' FROM generate_series(1, 200) i;
INSERT INTO "Büro Süd"."Überweisung" SELECT i, i / 7.0, U&'\00e4\0308 \1F600' FROM generate_series(1, 200) i;
INSERT INTO "Select" SELECT i, ARRAY['{}', '', NULL, 'NULL', '"'] FROM generate_series(1, 20) i;
INSERT INTO tenant_notes (tenant, note) SELECT (ARRAY['one', 'two', 'secret'])[1 + i % 3], 'note ' || i FROM generate_series(1, 600) i;
INSERT INTO announcements SELECT i, 'announcement ' || i, '2026-01-01' FROM generate_series(1, 30) i;
INSERT INTO urgent_announcements SELECT i, 'urgent ' || i, '2026-01-02', '2026-12-31 23:59:59.999999+00' FROM generate_series(101, 110) i;
INSERT INTO session_cache SELECT md5(i::text), '{}' FROM generate_series(1, 25) i;
INSERT INTO numbers VALUES
    (1, 'NaN', 'NaN', 'NaN', 1.05, B'1'), (2, 'Infinity', 'Infinity', '-Infinity', -92233720368547758.08, B'101010101010'), (3, 0.1, 0.1, 0.1, 0, B''),
    (4, 1e130 + 1e-130, 1.17549e-38, 2.2250738585072014e-308, 7, NULL), (5, 1.50, 16777217, 9007199254740993, NULL, NULL), (6, NULL, '-0', '-0', NULL, NULL);
INSERT INTO audit.retention (relation) VALUES ('app.settings');

SELECT setval('gate_number', -297), setval('dock_number', 97), setval('"Büro Süd"."Zähler ""A"""', 9007199254740993, false);
REFRESH MATERIALIZED VIEW customer_turnover;
ANALYZE;
