-- API tokens: their read model, when they were used last, and how many an organization may have.
CREATE SCHEMA api_tokens_1;
CREATE TABLE api_tokens_1.api_tokens (
    id              text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL,
    name            text             NOT NULL,
    hint            text COLLATE "C" NOT NULL,
    permissions     text[]           NOT NULL,
    created_by      text COLLATE "C" NOT NULL,
    responsible     text COLLATE "C" NOT NULL,
    state           text COLLATE "C" NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    version         bigint           NOT NULL,
    created_at      timestamptz      NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL
);
CREATE INDEX api_tokens_by_creation ON api_tokens_1.api_tokens (organization_id, created_at, id);
CREATE INDEX api_tokens_by_responsible ON api_tokens_1.api_tokens (organization_id, responsible)
    WHERE state = 'ACTIVE';

-- Which organizations have policies: few, and the sweeper looks for them again and again.
CREATE INDEX settings_of_policies ON organizations_1.settings (organization_id) WHERE namespace = 'policies';

-- Not of the log: written behind the requests, about once a minute and token at most.
CREATE TABLE token_uses (
    token_id     text COLLATE "C" PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);

-- An organization has a maximum of tokens from its creation on, where nobody set another one; those that are there
-- get it now. Replicas forget what they keep of tallies in memory.
INSERT INTO tallies (organization_id, name, maximum, partition)
    SELECT organization_id, 'tokens', 100, partition FROM tallies WHERE name = 'members' ON CONFLICT DO NOTHING;
UPDATE installation SET ledger_revision = ledger_revision + 1;
