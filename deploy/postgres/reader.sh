#!/bin/sh
# Creates the role with which Grafana reads the ledger: only the table of requests, no texts.
# PostgreSQL's image runs this script when it creates the database. The table is created later, so
# an event trigger grants access to it.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$GRAFANA_DATABASE_PASSWORD" \
  --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE grafana LOGIN PASSWORD :'password';

CREATE FUNCTION grant_grafana_select() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass('public.requests') IS NOT NULL THEN
    GRANT SELECT ON public.requests TO grafana;
  END IF;
END
$$;

CREATE EVENT TRIGGER grant_grafana_select ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
  EXECUTE FUNCTION grant_grafana_select();
SQL
