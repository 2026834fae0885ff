import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DocumentNode, Kind, parse } from 'graphql';
import { expect, it } from 'vitest';

const root = new URL('..', import.meta.url).pathname;

/** Mutations that no screen has, each with the reason. */
const WITHOUT_SCREEN: Record<string, string> = JSON.parse(readFileSync(join(root, 'src/mutations-without-screen.json'), 'utf8'));

function documents(folder: string): DocumentNode[] {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.graphql'));
  return files.map((name) => parse(readFileSync(join(folder, name), 'utf8')));
}

/** The root fields of all mutations that a screen may send. */
function used(): Set<string> {
  const found = new Set<string>();
  for (const { definitions } of documents(join(root, 'src'))) {
    for (const definition of definitions) {
      if (definition.kind !== Kind.OPERATION_DEFINITION || definition.operation !== 'mutation') continue;
      for (const field of definition.selectionSet.selections) if (field.kind === Kind.FIELD) found.add(field.name.value);
    }
  }
  return found;
}

it('every mutation of the schema has a place in the console, or a reason why not', () => {
  const schema = parse(readFileSync(join(root, '../schema.graphql'), 'utf8'));
  const mutation = schema.definitions.find(
    (definition) => definition.kind === Kind.OBJECT_TYPE_DEFINITION && definition.name.value === 'Mutation',
  );
  const all = mutation?.kind === Kind.OBJECT_TYPE_DEFINITION ? (mutation.fields ?? []).map(({ name }) => name.value) : [];
  expect(all.length).toBeGreaterThan(0);
  const placed = used();
  expect(all.filter((name) => !placed.has(name) && !(name in WITHOUT_SCREEN)).sort()).toEqual([]);
  // The list is no longer than it has to be.
  expect(Object.keys(WITHOUT_SCREEN).filter((name) => placed.has(name) || !all.includes(name))).toEqual([]);
});
