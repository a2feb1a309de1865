#!/bin/sh
# Makes the role by which Grafana reads the ledger: its rows, and not what was said.
# PostgreSQL's image runs this once, when the database is made; the tables come later.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$GRAFANA_DATABASE_PASSWORD" \
  --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE grafana LOGIN PASSWORD :'password';

CREATE FUNCTION let_grafana_read() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass('public.requests') IS NOT NULL THEN
    GRANT SELECT ON public.requests TO grafana;
  END IF;
END
$$;

CREATE EVENT TRIGGER let_grafana_read ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
  EXECUTE FUNCTION let_grafana_read();
SQL
