#!/bin/sh
# Make the secrets of compose.yaml in deploy/secrets/, once. Containers read the files as other users: the folder
# keeps everybody else out.
set -eu
cd "$(dirname "$0")"
mkdir -m 700 secrets
cd secrets

password=$(od -An -vtx1 -N24 /dev/urandom | tr -d ' \n')
printf %s "$password" > postgres_password
printf '"progress" "%s"\n' "$password" > pgbouncer_users
printf %s "postgresql://progress:$password@postgres:5432/progress" > migration_database_uri
printf %s "postgresql://progress:$password@pgbouncer:6432/progress" > database_uri
od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' > jwt_secret_key
head -c 32 /dev/urandom | base64 | tr '+/' '-_' > webhook_key
chmod 644 ./*
