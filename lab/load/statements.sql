-- What else the application does: one of these joins every tenth write, in its transaction. {client}, {seq} and {account} are replaced.
INSERT INTO app.events (account_id, kind, payload) VALUES ({account}, 'load', '{"client": {client}, "seq": {seq}}')
UPDATE app.events SET payload = payload || '{"seen": true}' WHERE (id, at) = (SELECT id, at FROM app.events WHERE account_id = {account} AND kind = 'load' ORDER BY id LIMIT 1)
INSERT INTO app.sensor_readings (sensor, at, value) VALUES (90000 + {client}, clock_timestamp(), {seq})
INSERT INTO app.events (account_id, kind) VALUES ({account}, 'load')
DELETE FROM app.sensor_readings WHERE sensor = 90000 + {client} AND at < now() - interval '10 seconds'
INSERT INTO app.scan_log (at, place, barcode, ok) VALUES (now(), 'gate {client}', 'load {seq}', true)
DELETE FROM app.events WHERE (id, at) = (SELECT id, at FROM app.events WHERE account_id = {account} AND kind = 'load' ORDER BY id LIMIT 1)
INSERT INTO app.settings (key, value) VALUES ('load {client}', '{seq}') ON CONFLICT (key) DO UPDATE SET value = excluded.value
