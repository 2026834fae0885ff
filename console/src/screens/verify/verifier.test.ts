import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { type Finding, verify } from './verifier.ts';

const VECTORS = '../tests/audit-vectors';
interface Vector {
  about: string;
  bundle: string;
  keys: string[];
  older: string | null;
  witnesses: string[];
  quorum: number | null;
  verdict: 'accepted' | 'refused';
}
const vectors = JSON.parse(await readFile(`${VECTORS}/vectors.json`, 'utf8')) as Vector[];

describe('the verifier, by the test vectors', () => {
  it.each(vectors)('$bundle: $about', async ({ bundle, keys, older, witnesses, quorum, verdict }) => {
    const found = await verify(createReadStream(`${VECTORS}/${bundle}`), {
      keys,
      witnesses,
      quorum,
      older: older ? [{ name: 'older', bytes: new Uint8Array(await readFile(`${VECTORS}/${older}`)) }] : [],
    });
    expect([found.verdict, verdict === 'accepted' ? found.wrong : null]).toEqual([verdict, null]);
  });
});

describe('the verifier names', () => {
  const keys = vectors[0]!.keys;
  const told = async (change: (lines: string[]) => string[]): Promise<Partial<Finding>[]> => {
    const lines = change((await readFile(`${VECTORS}/all.ndjson`, 'utf8')).trimEnd().split('\n'));
    const bytes = new TextEncoder().encode(`${lines.join('\n')}\n`);
    // Chunks that end within lines and characters.
    const source = (async function* () {
      for (let at = 0; at < bytes.length; at += 777) yield bytes.subarray(at, at + 777);
    })();
    const { findings, verdict } = await verify(source, { keys });
    expect(verdict).toBe(findings.length > 0 ? 'refused' : 'accepted');
    return findings.map(({ kind, place, sealedAt }) => ({ kind, place, ...(sealedAt ? { sealedAt } : {}) }));
  };

  it('nothing where nothing is wrong', async () => expect(await told((lines) => lines)).toEqual([]));

  it('the event that is missing', async () =>
    expect(await told((lines) => lines.toSpliced(4, 1))).toEqual([{ kind: 'missing', place: 3 }]));

  it('the event that was put in', async () =>
    expect(await told((lines) => lines.toSpliced(4, 0, lines[4]!))).toEqual([{ kind: 'added', place: 3 }]));

  it('the event that is altered', async () =>
    expect(await told((lines) => lines.with(4, lines[4]!.replace('"actor":"', '"actor":"x')))).toEqual([
      { kind: 'altered', place: 3 },
    ]));

  it('events that changed places', async () =>
    expect(await told((lines) => lines.with(3, lines[4]!).with(4, lines[3]!))).toEqual([
      { kind: 'moved', place: 3, sealedAt: 2 },
    ]));

  it('an event that was moved to another number', async () => {
    const findings = await told((lines) => lines.with(4, lines[4]!.replace('"auditSequence":"3"', '"auditSequence":"9"')));
    expect(findings).toContainEqual({ kind: 'moved', place: 9, sealedAt: 3 });
  });
});
