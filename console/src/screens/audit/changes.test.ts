import { expect, it } from 'vitest';
import { changesOf } from './changes.ts';

it('pairs a value with what it was before', () => {
  expect(changesOf({ name: 'Acme', previousName: 'Works', reason: null })).toEqual([{ field: 'name', from: 'Works', to: 'Acme' }]);
});

it('keeps an old value that has no new one', () => {
  expect(changesOf({ previousState: 'ACTIVE', roles: ['member'] })).toEqual([
    { field: 'state', from: 'ACTIVE', to: undefined },
    { field: 'roles', from: undefined, to: ['member'] },
  ]);
});
