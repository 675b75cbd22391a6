-- Pairs of filters, so that a list costs the same however few of a million runs match both.
CREATE INDEX workflows_by_kind_of_block_and_status
ON workflows (tenant, substr(blocked_on, 1, instr(blocked_on || ':', ':') - 1), status, started_at, workflow_id) WHERE blocked_on IS NOT NULL;
CREATE INDEX workflows_by_name_and_kind_of_block
ON workflows (tenant, substr(template, 1, instr(template, '@') - 1), substr(blocked_on, 1, instr(blocked_on || ':', ':') - 1), started_at, workflow_id)
WHERE blocked_on IS NOT NULL;
CREATE INDEX workflows_by_owner_and_status ON workflows (tenant, owner, status, started_at, workflow_id);
CREATE INDEX workflows_by_owner_and_name
ON workflows (tenant, owner, substr(template, 1, instr(template, '@') - 1), started_at, workflow_id);
CREATE INDEX workflows_by_owner_and_kind_of_block
ON workflows (tenant, owner, substr(blocked_on, 1, instr(blocked_on || ':', ':') - 1), started_at, workflow_id) WHERE blocked_on IS NOT NULL;
