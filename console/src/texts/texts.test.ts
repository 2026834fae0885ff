import { readdir, readFile } from 'node:fs/promises';
import { createIntl } from 'react-intl';
import { describe, expect, it } from 'vitest';
import { mergeTexts } from '../../texts.mjs';

const [english, german] = [await mergeTexts('en'), await mergeTexts('de')];

describe('the texts', () => {
  it('have the same keys in each language', () => {
    expect(Object.keys(german)).toEqual(Object.keys(english));
  });

  it('can be formatted, and name the same values', () => {
    const values = (text: string) => [...text.matchAll(/\{(\w+)/g)].map(([, name]) => name).sort();
    for (const [locale, messages] of [
      ['en', english],
      ['de', german],
    ] as const) {
      const wrong: unknown[] = [];
      const intl = createIntl({ locale, messages, onError: (error) => wrong.push(error) });
      for (const key of Object.keys(messages)) {
        const given = Object.fromEntries(values(english[key] ?? '').map((name) => [name, 1]));
        intl.formatMessage({ id: key }, given);
      }
      expect(wrong).toEqual([]);
    }
    for (const key of Object.keys(english)) {
      if (!english[key]?.includes('plural')) expect([key, ...values(german[key] ?? '')]).toEqual([key, ...values(english[key] ?? '')]);
    }
  });

  it('are all used', async () => {
    const files = (await readdir('src', { recursive: true })).filter((name) => /\.tsx?$/.test(name));
    const source = (await Promise.all(files.map((name) => readFile(`src/${name}`, 'utf8')))).join('\n');
    // Keys that are made at run time: their first part stands in a template.
    const made = [...source.matchAll(/`([\w.]+\.)\$\{/g)].map(([, start]) => start ?? '');
    const unused = Object.keys(english).filter(
      (key) => !source.includes(`'${key}'`) && !made.some((start) => key.startsWith(start)),
    );
    expect(unused).toEqual([]);
  });
});
