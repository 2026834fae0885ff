import type { SnapshotFragment } from '../../generated/graphql.ts';

export type Section = 'organization' | 'limits' | 'settings' | 'members' | 'invitations' | 'projects';
export interface Difference {
  section: Section;
  /** Of the thing; the name of a setting or limit. */
  id: string;
  kind: 'added' | 'removed' | 'altered';
  /** Of what is altered. */
  fields: { field: string; from: string; to: string }[];
}

type Fields = Record<string, unknown>;

/** What differs between two snapshots: section by section, in the order of the later one. */
export function differenceOf(from: SnapshotFragment, to: SnapshotFragment): Difference[] {
  const facts = ({ name, slug, plan, lifecycle, verification }: SnapshotFragment) => new Map([['', { name, slug, plan, lifecycle, verification }]]);
  const settings = ({ settings }: SnapshotFragment) =>
    new Map(Object.entries((settings ?? {}) as Fields).map(([name, value]): [string, Fields] => [name, { value }]));
  const by = <Row extends object>(rows: readonly Row[], id: (row: Row) => string, fields: (row: Row) => Fields) =>
    new Map(rows.map((row): [string, Fields] => [id(row), fields(row)]));
  const both = <Rows>(take: (snapshot: SnapshotFragment) => Rows): [Rows, Rows] => [take(from), take(to)];
  return [
    ...compare('organization', ...both<Map<string, Fields>>(facts)),
    ...compare('limits', ...both(({ limits }) => by(limits, ({ name }) => name, ({ maximum }) => ({ maximum })))),
    ...compare('settings', ...both(settings)),
    ...compare('members', ...both(({ members }) => by(members.nodes, ({ userId }) => userId, ({ roles, state }) => ({ roles, state })))),
    ...compare(
      'invitations',
      ...both(({ invitations }) => by(invitations.nodes, ({ invitationId }) => invitationId, ({ roles, state, expiresAt }) => ({ roles, state, expiresAt }))),
    ),
    ...compare('projects', ...both(({ projects }) => by(projects.nodes, ({ projectId }) => projectId, ({ name, slug, state }) => ({ name, slug, state })))),
  ];
}

function compare(section: Section, from: Map<string, Fields>, to: Map<string, Fields>): Difference[] {
  const found: Difference[] = [];
  for (const [id, after] of to) {
    const before = from.get(id);
    if (!before) {
      found.push({ section, id, kind: 'added', fields: [] });
      continue;
    }
    const fields = Object.keys(after)
      .map((field) => ({ field, from: written(before[field]), to: written(after[field]) }))
      .filter(({ from: was, to: is }) => was !== is);
    if (fields.length > 0) found.push({ section, id, kind: 'altered', fields });
  }
  for (const id of from.keys()) if (!to.has(id)) found.push({ section, id, kind: 'removed', fields: [] });
  return found;
}

function written(value: unknown): string {
  if (value === null || value === undefined) return '—';
  if (Array.isArray(value)) return value.join(', ');
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
