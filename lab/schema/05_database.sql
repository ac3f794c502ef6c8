-- What belongs to the database rather than to a schema. (Databases themselves are made outside of a transaction.)
ALTER DATABASE freight OWNER TO freight_owner;
ALTER DATABASE freight SET timezone = 'UTC';
ALTER DATABASE freight SET default_statistics_target = 150;
ALTER ROLE freight_batch IN DATABASE freight SET work_mem = '32MB';
ALTER ROLE freight_batch IN DATABASE freight SET search_path = app, public;
COMMENT ON DATABASE freight IS 'The freight application';
