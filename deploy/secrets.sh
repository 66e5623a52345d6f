#!/bin/sh
# Make the secrets of compose.yaml in deploy/secrets/, once. Containers read the files as other users: the folder
# keeps everybody else out.
set -eu
cd "$(dirname "$0")"
mkdir -m 700 secrets
cd secrets

random() {
    od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'
}

random > postgres_password
random > owner_password
random > server_password
random > jwt_secret_key
printf %s "postgresql://progress_owner:$(cat owner_password)@postgres:5432/progress" > migration_database_uri
printf %s "postgresql://progress_server:$(cat server_password)@pgbouncer:6432/progress" > database_uri
printf '"progress_server" "%s"\n' "$(cat server_password)" > pgbouncer_users
head -c 32 /dev/urandom | base64 | tr '+/' '-_' > webhook_key
chmod 644 ./*
