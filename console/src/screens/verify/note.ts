import { type Bytes, decimal, hex, joined, need, same, sha256, unbase64, utf8, Wrong } from './bytes.ts';

const NOTE_BYTES_MAX = 262_144;
const SIGNATURES_MAX = 64;
// Not in the name of a key: "+", and Unicode's white space.
const NO_NAME = /[+\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

export interface Key {
  name: string;
  id: string;
  raw: Bytes;
  key: CryptoKey;
}

/** Of a log's key, or of a witness's. */
export async function readKey(text: string, algorithm: 1 | 4 = 1): Promise<Key> {
  const [name = '', id = '', ...rest] = text.split('+');
  const bytes = unbase64Or(rest.join('+'), 33, 'key');
  need(name && !NO_NAME.test(name) && bytes[0] === algorithm, 'key', { key: text });
  need(hex((await sha256(utf8(`${name}\n`), bytes)).subarray(0, 4)) === id, 'key', { key: text });
  const raw = bytes.slice(1);
  try {
    return { name, id, raw, key: await crypto.subtle.importKey('raw', raw, { name: 'Ed25519' }, false, ['verify']) };
  } catch {
    throw new Wrong('key', { key: text });
  }
}

function unbase64Or(text: string, length: number, code: string): Bytes {
  try {
    return unbase64(text, length);
  } catch {
    throw new Wrong(code, { key: text });
  }
}

export interface Checkpoint {
  origin: string;
  size: bigint;
  root: Bytes;
  /** The keys that signed. Empty only where none was given to check. */
  signers: readonly Key[];
  /** How many known witnesses cosigned. */
  cosigned: number;
}

export interface Witnesses {
  keys: readonly Key[];
  quorum: number;
}

/** Opens a C2SP signed note with a tlog-checkpoint. Without keys, its signatures are not checked, and only its form is. */
export async function openNote(note: string, keys: readonly Key[], witnesses?: Witnesses): Promise<Checkpoint> {
  const { text, lines } = signatureLines(note);
  const body = utf8(text);
  const signers = await signedBy(lines, keys, async ({ key }, signature) => {
    need(signature.length === 64 && (await crypto.subtle.verify({ name: 'Ed25519' }, key, signature, body)), 'signature');
  });
  need(signers.length > 0 || keys.length === 0, 'unsigned');
  let cosigned = 0;
  if (witnesses && witnesses.quorum > 0) {
    cosigned = (
      await signedBy(lines, witnesses.keys, async ({ key }, cosignature) => {
        need(cosignature.length === 72, 'cosignature');
        const seconds = new DataView(cosignature.buffer, cosignature.byteOffset).getBigUint64(0);
        need(seconds < 1n << 63n, 'cosignature');
        const said = joined(utf8(`cosignature/v1\ntime ${seconds}\n`), body);
        need(await crypto.subtle.verify({ name: 'Ed25519' }, key, cosignature.slice(8), said), 'cosignature');
      })
    ).length;
    need(cosigned >= witnesses.quorum, 'quorum', { quorum: witnesses.quorum, cosigned });
  }
  const [origin = '', size = '', root = '', ...more] = text.slice(0, -1).split('\n');
  need(origin && root && more.every((line) => line !== ''), 'note');
  return { origin, size: decimal(size, 'note'), root: unbase64Or(root, 32, 'note'), signers, cosigned };
}

interface Line {
  name: string;
  id: string;
  signature: Bytes;
}

function signatureLines(note: string): { text: string; lines: Line[] } {
  need(utf8(note).length <= NOTE_BYTES_MAX, 'note');
  // eslint-disable-next-line no-control-regex
  need(!/[\u0000-\u0009\u000b-\u001f]/.test(note), 'note');
  const blank = note.lastIndexOf('\n\n');
  need(blank >= 0 && note.endsWith('\n') && note.length > blank + 2, 'note');
  const lines = note.slice(blank + 2, -1).split('\n');
  need(lines.length <= SIGNATURES_MAX, 'note');
  return {
    text: note.slice(0, blank + 1),
    lines: lines.map((line) => {
      const [dash, name = '', encoded = '', ...rest] = line.split(' ');
      need(dash === '\u2014' && name && !NO_NAME.test(name) && rest.length === 0, 'note');
      let bytes: Bytes;
      try {
        bytes = unbase64(encoded);
      } catch {
        throw new Wrong('note');
      }
      need(bytes.length > 4, 'note');
      return { name, id: hex(bytes.subarray(0, 4)), signature: bytes.slice(4) };
    }),
  };
}

async function signedBy(lines: readonly Line[], keys: readonly Key[], check: (key: Key, signature: Bytes) => Promise<void>) {
  const signed: Key[] = [];
  for (const { name, id, signature } of lines) {
    const key = keys.find((known) => known.name === name && known.id === id);
    if (!key) continue;
    need(!signed.includes(key), 'signedTwice');
    await check(key, signature);
    signed.push(key);
  }
  return signed;
}

/** Each of another witness, and how many of them it takes: all where nothing else is said. */
export async function readWitnesses(texts: readonly string[], quorum: number | null): Promise<Witnesses> {
  const keys = await Promise.all(texts.map((text) => readKey(text, 4)));
  const needed = quorum ?? keys.length;
  const twice = keys.some((a, at) => keys.slice(0, at).some((b) => a.name === b.name || same(a.raw, b.raw)));
  need(!twice && needed >= Math.min(1, keys.length) && needed <= keys.length, 'witnesses');
  return { keys, quorum: needed };
}

/** The origin without the epoch, which a restored database has. */
export function treeOf(origin: string): string {
  const epoch = /^(.*)\/(0|[1-9][0-9]{0,19})$/s.exec(origin);
  return epoch && BigInt(epoch[2]!) < 1n << 64n ? epoch[1]! : origin;
}
