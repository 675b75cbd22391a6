-- Runs by their template's name whatever its version, and by what kind of thing they wait for.
CREATE INDEX workflows_by_name
ON workflows (tenant, substr(template, 1, instr(template, '@') - 1), started_at, workflow_id);
CREATE INDEX workflows_by_name_and_status
ON workflows (tenant, substr(template, 1, instr(template, '@') - 1), status, started_at, workflow_id);
CREATE INDEX workflows_by_kind_of_block
ON workflows (tenant, substr(blocked_on, 1, instr(blocked_on || ':', ':') - 1), started_at, workflow_id) WHERE blocked_on IS NOT NULL;
