DROP TABLE archive_runs;
DROP TABLE archive_parts;
