#!/bin/sh
# Makes Temporal's two databases on PostgreSQL, or brings them to this release's schema.
set -eu
SQL_PASSWORD=$(cat /run/secrets/postgres_password)
export SQL_PASSWORD
schemas=/etc/temporal/schema/postgresql/v12

prepare() { # database, folder of its schema
    # The first two fail where database and version table exist already; the third tells.
    temporal-sql-tool --database "$1" create-database || true
    temporal-sql-tool --database "$1" setup-schema -v 0.0 || true
    temporal-sql-tool --database "$1" update-schema -d "$schemas/$2/versioned"
}

prepare temporal temporal
prepare temporal_visibility visibility
