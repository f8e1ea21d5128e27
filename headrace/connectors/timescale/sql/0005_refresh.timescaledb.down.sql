DROP PROCEDURE headrace_refresh(integer, jsonb);
