-- The steps that wait for signals, found by the type of signal: a small table.
CREATE TABLE waits (
    tenant TEXT NOT NULL,
    type TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    PRIMARY KEY (tenant, type, workflow_id, step_id)
) STRICT, WITHOUT ROWID;
