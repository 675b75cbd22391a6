-- Up to where each reader of a tenant's log has come (who is told of signals): moved on after what was read is done.
CREATE TABLE places (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
