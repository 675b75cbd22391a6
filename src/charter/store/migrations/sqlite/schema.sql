-- The whole schema as it stands: the sum of the numbered migrations (a test compares them). Not applied by anything.

-- One row a tenant: its number, how many leaves its log has, and the right edge of its Merkle tree
-- (charter.audit.merkle.Frontier.to_bytes).
CREATE TABLE tenants (
    no INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    frontier BLOB NOT NULL
) STRICT;

-- One row a stream: its version, and the pos of its last event.
CREATE TABLE streams (
    no INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (tenant, stream)
) STRICT;

-- pos = tenants.no * 2^40 + seq: the tenant's leaves lie together in order, and need no second index for it.
-- prev = pos of the stream's event before (null for the first): a stream is read backwards from its last event, or from
-- the nearest milestone. An index of all (stream, version) would make each commit write a page for each stream in it.
-- leaf are the exact bytes that were hashed; the other columns repeat parts of it to find it by.
CREATE TABLE events (
    pos INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    version INTEGER NOT NULL,
    prev INTEGER,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    time TEXT NOT NULL,
    leaf BLOB NOT NULL,
    leaf_hash BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_milestones ON events (stream, version) WHERE version % 64 = 0;

CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

-- The log in its own words, for people and other tools.
CREATE VIEW ledger AS
SELECT
    s.tenant, e.pos & 1099511627775 AS seq, s.stream, e.version, e.id, e.type, e.time,
    CAST(e.leaf AS TEXT) AS leaf, lower(hex(e.leaf_hash)) AS leaf_hash
FROM events AS e JOIN streams AS s ON s.no = e.stream;

-- Roots of complete subtrees at levels 8, 16, 24, ...: one row for every 256 below it.
CREATE TABLE nodes (
    tenant INTEGER NOT NULL,
    level INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (tenant, level, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    tenant TEXT NOT NULL,
    size INTEGER NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (tenant, size)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;

CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;

-- Keys that can be taken once.
CREATE TABLE claims (
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant, scope, key)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER claims_no_update BEFORE UPDATE ON claims
BEGIN
    SELECT RAISE(ABORT, 'a claim is taken once');
END;

CREATE TRIGGER claims_no_delete BEFORE DELETE ON claims
BEGIN
    SELECT RAISE(ABORT, 'a claim is taken once');
END;

-- Encrypted bytes beside the log; the only thing of the record that may be deleted.
CREATE TABLE sealed (
    tenant TEXT NOT NULL,
    ref TEXT NOT NULL,
    key_id TEXT NOT NULL,
    blob BLOB NOT NULL,
    UNIQUE (tenant, ref)
) STRICT;

-- List views: made from the events, and never the record.
CREATE TABLE workflows (
    tenant TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    template TEXT NOT NULL,
    status TEXT NOT NULL,
    owner TEXT NOT NULL,
    purpose TEXT NOT NULL,
    case_id TEXT,
    blocked_on TEXT,
    started_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    wake_at TEXT,
    UNIQUE (tenant, workflow_id)
) STRICT;

CREATE INDEX workflows_newest ON workflows (tenant, started_at, workflow_id);
CREATE INDEX workflows_by_status ON workflows (tenant, status, started_at, workflow_id);
CREATE INDEX workflows_by_owner ON workflows (tenant, owner, started_at, workflow_id);
CREATE INDEX workflows_by_template ON workflows (tenant, template, started_at, workflow_id);
CREATE INDEX workflows_by_case ON workflows (tenant, case_id, started_at, workflow_id) WHERE case_id IS NOT NULL;
CREATE INDEX workflows_by_block ON workflows (tenant, blocked_on, started_at, workflow_id) WHERE blocked_on IS NOT NULL;
CREATE INDEX workflows_due ON workflows (wake_at, tenant, workflow_id) WHERE wake_at IS NOT NULL;

CREATE TABLE approvals (
    tenant TEXT NOT NULL,
    approval_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    status TEXT NOT NULL,
    tool TEXT,
    risk TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    owner TEXT,
    requested_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    request TEXT NOT NULL,
    UNIQUE (tenant, approval_id)
) STRICT;

CREATE INDEX approvals_newest ON approvals (tenant, requested_at, approval_id);
CREATE INDEX approvals_by_status ON approvals (tenant, status, requested_at, approval_id);
CREATE INDEX approvals_by_workflow ON approvals (tenant, workflow_id, requested_at, approval_id);
CREATE INDEX approvals_by_owner ON approvals (tenant, owner, requested_at, approval_id) WHERE owner IS NOT NULL;

-- Only effects that have not ended, or ended in doubt: a small table.
CREATE TABLE effects (
    tenant TEXT NOT NULL,
    effect_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    status TEXT NOT NULL,
    tool TEXT NOT NULL,
    instance TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (tenant, effect_id)
) STRICT, WITHOUT ROWID;

-- A cache of folds; shape is the version of the code's form of them.
CREATE TABLE snapshots (
    tenant TEXT NOT NULL,
    stream TEXT NOT NULL,
    shape INTEGER NOT NULL,
    version INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (tenant, stream)
) STRICT;

-- The steps that wait for signals, found by the type of signal: a small table.
CREATE TABLE waits (
    tenant TEXT NOT NULL,
    type TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    PRIMARY KEY (tenant, type, workflow_id, step_id)
) STRICT, WITHOUT ROWID;

-- Up to where each reader of a tenant's log has come (who is told of signals): moved on after what was read is done.
CREATE TABLE places (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- Runs by their template's name whatever its version, and by what kind of thing they wait for.
CREATE INDEX workflows_by_name
ON workflows (tenant, substr(template, 1, instr(template, '@') - 1), started_at, workflow_id);
CREATE INDEX workflows_by_name_and_status
ON workflows (tenant, substr(template, 1, instr(template, '@') - 1), status, started_at, workflow_id);
CREATE INDEX workflows_by_kind_of_block
ON workflows (tenant, substr(blocked_on, 1, instr(blocked_on || ':', ':') - 1), started_at, workflow_id) WHERE blocked_on IS NOT NULL;

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
