-- The roles of docs/operating.md, which PostgreSQL's image makes when it is first started.
\set owner_password `cat /run/secrets/owner_password`
\set server_password `cat /run/secrets/server_password`
CREATE ROLE progress_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE progress_server LOGIN PASSWORD :'server_password';
CREATE DATABASE progress OWNER progress_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE progress FROM PUBLIC;
GRANT CONNECT ON DATABASE progress TO progress_server;
\connect progress
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO progress_owner;
GRANT USAGE ON SCHEMA public TO progress_server;
ALTER DEFAULT PRIVILEGES FOR ROLE progress_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO progress_server;
ALTER DEFAULT PRIVILEGES FOR ROLE progress_owner IN SCHEMA public
    GRANT USAGE, UPDATE ON SEQUENCES TO progress_server;
