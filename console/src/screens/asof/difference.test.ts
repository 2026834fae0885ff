import { expect, it } from 'vitest';
import type { SnapshotFragment } from '../../generated/graphql.ts';
import { differenceOf } from './difference.ts';

const page = { hasNextPage: false, endCursor: null };
const empty = {
  id: 'org_1',
  name: 'Acme',
  slug: 'acme',
  plan: 'free',
  lifecycle: 'ACTIVE',
  verification: 'IN_SETUP',
  settings: {},
  limits: [],
  members: { nodes: [], pageInfo: page },
  invitations: { nodes: [], pageInfo: page },
  projects: { nodes: [], pageInfo: page },
} as unknown as SnapshotFragment;
const project = (state: string) => ({ nodes: [{ projectId: 'prj_1', name: 'Rocket', slug: 'rocket', state }], pageInfo: page });

it('finds nothing between a moment and itself', () => expect(differenceOf(empty, empty)).toEqual([]));

it('names what came, went and changed', () => {
  const to = { ...empty, name: 'Acme 2', projects: project('ACTIVE') } as SnapshotFragment;
  expect(differenceOf(empty, to)).toEqual([
    { section: 'organization', id: '', kind: 'altered', fields: [{ field: 'name', from: 'Acme', to: 'Acme 2' }] },
    { section: 'projects', id: 'prj_1', kind: 'added', fields: [] },
  ]);
  expect(differenceOf(to, empty).at(-1)).toMatchObject({ kind: 'removed', id: 'prj_1' });
  const archived = { ...to, projects: project('ARCHIVED') } as SnapshotFragment;
  expect(differenceOf(to, archived)[0]?.fields).toEqual([{ field: 'state', from: 'ACTIVE', to: 'ARCHIVED' }]);
});
