-- What an organization uses is read from tallies, where commands are held against it. Counting it here too meant to
-- write the organization's row for every event of any of its streams.
ALTER TABLE organizations_1.organizations DROP COLUMN limits;
