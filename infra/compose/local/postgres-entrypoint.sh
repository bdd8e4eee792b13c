#!/usr/bin/env bash
# Creates the cluster at the first start, with the password of POSTGRES_PASSWORD_FILE, and runs it.
set -euo pipefail
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    read -ra options <<<"${POSTGRES_INITDB_ARGS:-}"
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" "${options[@]}"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl start --wait --silent --options="-c listen_addresses=''"
    PGPASSWORD=$(<"$POSTGRES_PASSWORD_FILE") createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl stop --wait --silent
fi
exec "$@" -c listen_addresses='*'
