# Run by the image of the database when it makes its data: the role that fills tables, and makes none. Those are made
# by the service `migrate`, as the owner of the database. See docs/guides/database.md.
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 \
    --set password="$(cat /run/secrets/data-password)" <<'SQL'
CREATE ROLE headrace_data LOGIN PASSWORD :'password';
SQL
