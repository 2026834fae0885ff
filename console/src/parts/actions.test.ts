import { readFile } from 'node:fs/promises';
import { buildSchema, type GraphQLEnumType } from 'graphql';
import { describe, expect, it } from 'vitest';
import { mergeTexts } from '../../texts.mjs';
import { ACTIONS, actionName } from './actions.ts';
import { VALUES } from './Event.tsx';

const schema = buildSchema(await readFile('../schema.graphql', 'utf8'));

describe('the actions of the audit trail', () => {
  it('are those of the schema', () => {
    const type = schema.getType('AuditAction') as GraphQLEnumType;
    expect([...ACTIONS].sort()).toEqual(type.getValues().map(({ name }) => name).sort());
  });

  it.each(['en', 'de'])('each have a sentence: %s', async (language) => {
    const texts = await mergeTexts(language);
    expect(ACTIONS.map(actionName).filter((action) => !texts[`event.${action}`])).toEqual([]);
  });

  it('name values that every event has, or that are filled in', async () => {
    const texts = await mergeTexts('en');
    const named = ACTIONS.flatMap((action) => [...(texts[`event.${actionName(action)}`] ?? '').matchAll(/\{(\w+)\}/g)]);
    const values = new Set(named.map(([, name]) => name));
    expect([...values].filter((name) => name !== 'actor' && !VALUES.includes(name ?? ''))).toEqual([]);
  });
});
