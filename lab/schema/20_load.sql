-- The tables that the load drives.
SET ROLE freight_owner;
SET search_path = app, public, extensions;

CREATE TABLE accounts (
    id bigint PRIMARY KEY,
    balance bigint NOT NULL DEFAULT 0,
    holder text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
COMMENT ON TABLE accounts IS 'Accounts of customers: the sum of all balances is the sum of the ledger''s amounts';

CREATE TABLE ledger (
    client integer NOT NULL,
    seq bigint NOT NULL,
    account_id bigint NOT NULL REFERENCES accounts (id),
    amount bigint NOT NULL,
    note text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, seq)
);
CREATE INDEX ledger_account ON ledger (account_id);

CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    account_id bigint,
    kind text NOT NULL DEFAULT 'note',
    payload jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00');
CREATE TABLE events_2026_h1 PARTITION OF events FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-07-01 00:00+00');
CREATE TABLE events_2026_h2 PARTITION OF events FOR VALUES FROM ('2026-07-01 00:00+00') TO ('2027-01-01 00:00+00');
CREATE TABLE events_2027 PARTITION OF events FOR VALUES FROM ('2027-01-01 00:00+00') TO ('2028-01-01 00:00+00');
CREATE TABLE events_other PARTITION OF events DEFAULT;
CREATE INDEX events_at ON events (at);
CREATE INDEX events_account ON events (account_id) WHERE account_id IS NOT NULL;
RESET ROLE;
