#!/bin/sh
# Hands the database password from its file to the server, which knows only the variable.
set -eu
POSTGRES_PWD=$(cat /run/secrets/postgres_password)
export POSTGRES_PWD
exec /etc/temporal/entrypoint.sh
