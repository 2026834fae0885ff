-- Read models. Each version of a projection has a schema of its own, and its statements name tables without
-- schema: the connection's search path decides. Every row carries the offset of the last event that it shows.

CREATE TABLE checkpoints (
    projection text COLLATE "C" NOT NULL,
    version    integer          NOT NULL,
    partition  smallint         NOT NULL,
    "offset"   bigint           NOT NULL DEFAULT 0,
    -- An event that cannot be applied stops its partition; what was wrong stands here.
    failed_at  timestamptz,
    failure    text,
    updated_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version, partition)
);

CREATE SCHEMA organizations_1;
CREATE TABLE organizations_1.organizations (
    id                  text COLLATE "C" PRIMARY KEY,
    slug                text COLLATE "C" NOT NULL,
    name                text             NOT NULL,
    contact_email       text,
    external_id         text COLLATE "C",
    verification        text COLLATE "C" NOT NULL,
    verification_reason text,
    before_block        text COLLATE "C" NOT NULL,
    once_verified       boolean          NOT NULL,
    lifecycle           text COLLATE "C" NOT NULL,
    before_deletion     text COLLATE "C" NOT NULL,
    deleted_by_operator boolean          NOT NULL,
    purge_at            timestamptz,
    plan                text             NOT NULL,
    limits              json             NOT NULL,
    version             bigint           NOT NULL,
    created_at          timestamptz      NOT NULL,
    partition           smallint         NOT NULL,
    "offset"            bigint           NOT NULL
);
CREATE INDEX organizations_by_creation ON organizations_1.organizations (created_at, id);
CREATE INDEX organizations_by_slug ON organizations_1.organizations (slug);
CREATE INDEX organizations_by_external_id ON organizations_1.organizations (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX organizations_by_purge ON organizations_1.organizations (purge_at) WHERE purge_at IS NOT NULL;
CREATE TABLE organizations_1.settings (
    organization_id text COLLATE "C" NOT NULL,
    namespace       text COLLATE "C" NOT NULL,
    value           json             NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL,
    PRIMARY KEY (organization_id, namespace)
);

CREATE SCHEMA members_1;
CREATE TABLE members_1.members (
    id              text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    roles           text[]           NOT NULL,
    state           text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    joined_at       timestamptz      NOT NULL,
    version         bigint           NOT NULL,
    created_at      timestamptz      NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL
);
CREATE INDEX members_by_creation ON members_1.members (organization_id, created_at, id);
CREATE INDEX members_by_user ON members_1.members (user_id, created_at, id);

CREATE SCHEMA invitations_1;
CREATE TABLE invitations_1.invitations (
    id              text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL,
    email           text,
    email_claim     text COLLATE "C" NOT NULL,
    roles           text[]           NOT NULL,
    state           text COLLATE "C" NOT NULL,
    invited_by      text COLLATE "C" NOT NULL,
    accepted_by     text COLLATE "C",
    expires_at      timestamptz      NOT NULL,
    version         bigint           NOT NULL,
    created_at      timestamptz      NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL
);
CREATE INDEX invitations_by_creation ON invitations_1.invitations (organization_id, created_at, id);
CREATE INDEX invitations_by_address ON invitations_1.invitations (email_claim, created_at, id);

CREATE SCHEMA projects_1;
CREATE TABLE projects_1.projects (
    id              text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL,
    slug            text COLLATE "C" NOT NULL,
    name            text             NOT NULL,
    metadata        json             NOT NULL,
    state           text COLLATE "C" NOT NULL,
    before_deletion text COLLATE "C" NOT NULL,
    purge_at        timestamptz,
    version         bigint           NOT NULL,
    created_at      timestamptz      NOT NULL,
    partition       smallint         NOT NULL,
    "offset"        bigint           NOT NULL
);
CREATE INDEX projects_by_creation ON projects_1.projects (organization_id, created_at, id);
CREATE INDEX projects_by_purge ON projects_1.projects (purge_at) WHERE purge_at IS NOT NULL;

CREATE SCHEMA users_1;
CREATE TABLE users_1.users (
    id         text COLLATE "C" PRIMARY KEY,
    email      text,
    name       text,
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL,
    partition  smallint    NOT NULL,
    "offset"   bigint      NOT NULL
);
