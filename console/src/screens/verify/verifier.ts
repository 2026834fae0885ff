/**
 * Verifies an audit bundle by docs/audit-format.md alone: it shares nothing with the service. It runs in a worker or in
 * the page, reads the bundle as a stream, and holds one run of 256 events at a time.
 *
 * One step is shorter than the page has it. There two lists of subtrees grow, from the events and from the sealed hashes,
 * and both have to be the same. Here each event has to have the sealed hash of its place, and the sealed hashes alone have
 * to join to the signed root.
 */
import { type Bytes, fromUtf8, joined, need, same, sha256, unbase64, unbase64url, utf8, Wrong } from './bytes.ts';
import { type Checkpoint, type Key, openNote, readKey, readWitnesses, treeOf, type Witnesses } from './note.ts';
import { leadsTo, Tree } from './tree.ts';

const COLUMNS =
  'aggregateType aggregateId sequence eventType eventVersion payload metadata organizationId auditSequence eventId commandId actor onBehalfOf ip userAgent requestId correlationId causationId recordedAt'.split(
    ' ',
  );
const MAY_BE_NULL = new Set(['onBehalfOf', 'ip', 'userAgent', 'requestId', 'causationId']);
const RECORD = 'part id createdAt kind actor operation organizationId reachedOrganizationId targetId times ip'.split(' ');
const NEVER_NULL = new Set(['part', 'id', 'createdAt', 'times']);
const INSTALLATION = 'installation';
const ACCESS = 'access';
const RUN = 256;
const LINE_BYTES_MAX = 16_777_216;
/** Events that are held while the hashes of their run have not come: more is no bundle, and would fill the memory. */
const RUN_HELD_MAX = 4 * RUN;
const FINDINGS_MAX = 200;
const LEAF = Uint8Array.of(0);

export type Finding = {
  kind: 'altered' | 'missing' | 'added' | 'moved' | 'personal' | 'form';
  /** The place in the tree, the audit sequence. */
  place: number | null;
  /** Where a moved one was sealed. */
  sealedAt?: number;
  /** Of the event, as the bundle has it. */
  id?: string;
  action?: string;
  /** Of a personal datum. */
  field?: string;
};

export interface Older {
  name: string;
  bytes: Bytes;
}

export interface Wanted {
  keys: readonly string[];
  /** Checks hashes even without a key; the verdict is `unsigned` at best then. */
  keyless?: boolean;
  witnesses?: readonly string[];
  quorum?: number | null;
  older?: readonly Older[];
}

export interface Progress {
  events: number;
  of: number;
}

export interface Verdict {
  verdict: 'accepted' | 'unsigned' | 'refused';
  /** Why it is refused as a whole, as the code of a text. */
  wrong: { code: string; values: Record<string, string | number> } | null;
  findings: Finding[];
  /** More findings than are listed. */
  more: number;
  /** Whether the sealed hashes lead to the signed root, so that findings name the right events. Null: not known. */
  hashesSealed: boolean | null;
  organization: string | null;
  from: number;
  to: number;
  complete: boolean;
  events: number;
  root: string | null;
  origin: string | null;
  note: string | null;
  signers: string[];
  cosigned: number;
  quorum: number;
  /** Personal data that was opened and compared, and sealed data that has no entry. */
  opened: number;
  closed: number;
  older: { name: string; size: number }[];
}

type Columns = Record<string, string | null>;
interface Header {
  organization: string;
  from: number;
  to: number;
  complete: boolean;
  before: Bytes[];
}
interface Item {
  number: number;
  id: string;
  action: string;
  columns: Columns;
  leaf: Bytes;
}

export async function verify(
  source: AsyncIterable<Uint8Array>,
  wanted: Wanted,
  progress: (progress: Progress) => void | Promise<void> = () => undefined,
): Promise<Verdict> {
  const run = new Verification(wanted, progress);
  try {
    await run.all(source);
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    run.verdict.wrong = { code: error.code, values: error.values };
  }
  const { verdict } = run;
  const good = !verdict.wrong && verdict.findings.length === 0;
  verdict.verdict = !good ? 'refused' : verdict.signers.length > 0 ? 'accepted' : 'unsigned';
  return verdict;
}

class Verification {
  readonly verdict: Verdict = {
    verdict: 'refused',
    wrong: null,
    findings: [],
    more: 0,
    hashesSealed: null,
    organization: null,
    from: 0,
    to: 0,
    complete: false,
    events: 0,
    root: null,
    origin: null,
    note: null,
    signers: [],
    cosigned: 0,
    quorum: 0,
    opened: 0,
    closed: 0,
    older: [],
  };

  constructor(
    private readonly wanted: Wanted,
    private readonly progress: (progress: Progress) => void | Promise<void>,
  ) {}

  async all(source: AsyncIterable<Uint8Array>): Promise<void> {
    const { verdict } = this;
    need(this.wanted.keys.length > 0 || this.wanted.keyless, 'noKey');
    const keys = await Promise.all(this.wanted.keys.map((text) => readKey(text)));
    const witnesses = await readWitnesses(this.wanted.witnesses ?? [], this.wanted.quorum ?? null);
    const older: { name: string; checkpoint: Checkpoint }[] = [];
    for (const { name, bytes } of this.wanted.older ?? []) {
      try {
        older.push({ name, checkpoint: await readOlder(bytes, keys) });
      } catch (error) {
        throw new Wrong('older', { name, why: error instanceof Wrong ? error.code : String(error) });
      }
    }
    const lines = readLines(source);
    const header = readHeader(await nextLine(lines));
    Object.assign(verdict, { organization: header.organization, from: header.from, to: header.to, complete: header.complete });
    const { checkpoint, note } = await readCheckpoint(await nextLine(lines), header, keys, witnesses);
    Object.assign(verdict, {
      note,
      origin: checkpoint.origin,
      cosigned: checkpoint.cosigned,
      quorum: witnesses.quorum,
      signers: checkpoint.signers.map(({ name, id }) => `${name}+${id}`),
    });
    for (const { name, checkpoint: then } of older) {
      need(treeOf(then.origin) === treeOf(checkpoint.origin), 'olderTree', { name });
      need(then.size <= checkpoint.size, 'olderMore', { name, size: String(then.size), to: header.to });
    }
    const roots = header.complete
      ? await this.#complete(lines, header, checkpoint, older.map(({ checkpoint: then }) => then))
      : await this.#some(lines, header, checkpoint);
    for (const { name, checkpoint: then } of older) {
      const size = Number(then.size);
      const root = then.size === checkpoint.size ? checkpoint.root : roots.get(size);
      need(root, 'olderUnshown', { name, size });
      need(same(root, then.root), 'olderChanged', { name, size });
      verdict.older.push({ name, size });
    }
  }

  /** Every event, in runs. Answers the roots at the sizes of older checkpoints. */
  async #complete(lines: Lines, header: Header, checkpoint: Checkpoint, older: readonly Checkpoint[]): Promise<Map<number, Bytes>> {
    const tree = new Tree(header.from - 1, header.before);
    const roots = new Map<number, Bytes>();
    const stops = [...new Set(older.map(({ size }) => Number(size)))].sort((a, b) => a - b);
    if (stops.includes(tree.size)) roots.set(tree.size, await tree.root());
    let run: Item[] = [];
    for (;;) {
      const line = await nextLine(lines);
      if (line.type === 'event' || line.type === 'record') {
        need(tree.size < header.to || run.length > 0, 'tooMany');
        run.push(await this.#item(line, header, tree.size + run.length + 1, false));
        need(run.length <= RUN_HELD_MAX, 'noHashes');
      } else if (line.type === 'hashes') {
        members(line, ['type', 'first', 'hashes']);
        const first = tree.size + 1;
        const end = Math.min(Math.ceil(first / RUN) * RUN, header.to);
        need(first <= header.to && line.first === first && Array.isArray(line.hashes), 'hashes', { place: first });
        const hashes = (line.hashes as unknown[]).map((hash) => unbase64(hash, 32));
        need(hashes.length === end - first + 1, 'hashes', { place: first });
        this.#compare(run, hashes, first, header.organization);
        await this.#relabel(run, hashes, first);
        let at = 0;
        for (const stop of [...stops.filter((size) => size > tree.size && size < end), end]) {
          await tree.add(hashes.slice(at, stop - first + 1));
          at = stop - first + 1;
          if (stops.includes(stop)) roots.set(stop, await tree.root());
        }
        run = [];
        await this.progress({ events: this.verdict.events, of: header.to - header.from + 1 });
      } else {
        need(line.type === 'end', 'line');
        members(line, ['type']);
        break;
      }
    }
    need((await lines.next()).done, 'afterEnd');
    need(run.length === 0, 'noHashes');
    need(tree.size === header.to, 'cut', { size: tree.size, to: header.to });
    const root = await tree.root();
    this.verdict.hashesSealed = same(root, checkpoint.root);
    this.verdict.root = hexRoot(root);
    need(this.verdict.hashesSealed, 'root');
    return roots;
  }

  /** Some events, each with its proof. */
  async #some(lines: Lines, header: Header, checkpoint: Checkpoint): Promise<Map<number, Bytes>> {
    let last = header.from - 1;
    this.verdict.root = hexRoot(checkpoint.root);
    this.verdict.hashesSealed = true;
    for (;;) {
      const line = await nextLine(lines);
      if (line.type !== 'event') {
        need(line.type === 'end', 'line');
        members(line, ['type']);
        break;
      }
      const item = await this.#item(line, header, last + 1, true);
      need(item.number > last && item.number <= header.to, 'order', { place: item.number });
      last = item.number;
      need(Array.isArray(line.proof), 'line');
      const path = (line.proof as unknown[]).map((hash) => unbase64(hash, 32));
      const proven = await leadsTo(checkpoint.root, BigInt(item.number) - 1n, checkpoint.size, item.leaf, path);
      if (!proven) this.#find({ kind: 'altered', place: item.number, ...named(item) });
      if (this.verdict.events % RUN === 0) await this.progress({ events: this.verdict.events, of: 0 });
    }
    need((await lines.next()).done, 'afterEnd');
    return new Map();
  }

  /** An event or a record: its form, its leaf, and its personal data. */
  async #item(line: Line, header: Header, expected: number, proof: boolean): Promise<Item> {
    const record = line.type === 'record';
    need(record === (header.organization === ACCESS), 'line');
    members(line, ['type', 'columns', 'personal', ...(proof ? ['proof'] : [])]);
    const installation = header.organization === INSTALLATION;
    const names = record ? RECORD : COLUMNS;
    members(line.columns, names);
    const columns = line.columns as Columns;
    for (const name of names) {
      const nullable = record
        ? !NEVER_NULL.has(name)
        : MAY_BE_NULL.has(name) || (installation && (name === 'organizationId' || name === 'auditSequence'));
      need(typeof columns[name] === 'string' || (columns[name] === null && nullable), 'column', { place: expected, name });
    }
    let number = expected;
    if (!record) {
      need(columns.organizationId === (installation ? null : header.organization), 'otherOrganization', { place: expected });
      if (installation) need(columns.auditSequence === null, 'column', { place: expected, name: 'auditSequence' });
      else {
        const text = columns.auditSequence ?? '';
        need(/^[1-9][0-9]{0,15}$/.test(text) && Number.isSafeInteger(+text), 'column', { place: expected, name: 'auditSequence' });
        number = +text;
      }
    }
    this.verdict.events += 1;
    const item: Item = {
      number,
      id: columns[record ? 'id' : 'eventId'] ?? '',
      action: columns[record ? 'operation' : 'eventType'] ?? '',
      columns,
      leaf: await leafOf(columns, record),
    };
    await this.#personal(line, item, record);
    return item;
  }

  async #personal(line: Line, item: Item, record: boolean): Promise<void> {
    const { personal } = line;
    need(isObject(personal), 'line');
    const places = Object.keys(personal);
    need(inByteOrder(places) && (!record || places.every((place) => place === 'ip')), 'personal', { place: item.number });
    const sealed = record ? (item.columns.ip === null ? 0 : 1) : countSealed(item.columns);
    this.verdict.opened += places.length;
    this.verdict.closed += Math.max(0, sealed - places.length);
    for (const place of places) {
      const datum = personal[place];
      members(datum, ['value', 'key']);
      try {
        const { key, value } = datum as { key: unknown; value: unknown };
        need(typeof value === 'string' && (await opened(item.columns, place, unbase64(key, 32), record)) === value, 'personal');
      } catch (error) {
        if (!(error instanceof Wrong)) throw error;
        this.#find({ kind: 'personal', place: item.number, field: place, ...named(item) });
      }
    }
  }

  /** Holds the events of a run against the hashes that were sealed of it, and names each difference. */
  #compare(run: readonly Item[], hashes: readonly Bytes[], first: number, organization: string): void {
    const numbered = organization !== INSTALLATION && organization !== ACCESS;
    const right = (item: Item | undefined, at: number) =>
      item !== undefined && same(item.leaf, hashes[at]!) && (!numbered || item.number === first + at);
    if (run.length === hashes.length && run.every((item, at) => right(item, at))) return;
    const sealed = new Map(hashes.map((hash, at) => [hexRoot(hash), at]));
    const filled = new Set<number>();
    const left: Item[] = [];
    // Events that are as they were sealed: in order they are right, and else they stand elsewhere.
    let reached = -1;
    for (const item of run) {
      const at = sealed.get(hexRoot(item.leaf));
      if (at === undefined) {
        left.push(item);
        continue;
      }
      if (filled.has(at)) this.#find({ kind: 'added', place: first + at, ...named(item) });
      else if (at < reached) this.#find({ kind: 'moved', place: first + reached, sealedAt: first + at, ...named(item) });
      filled.add(at);
      reached = Math.max(reached, at);
    }
    for (const item of left) {
      const at = numbered ? item.number - first : run.indexOf(item);
      if (at >= 0 && at < hashes.length && !filled.has(at)) {
        filled.add(at);
        this.#find({ kind: 'altered', place: first + at, ...named(item) });
      } else {
        this.#find({ kind: 'added', place: item.number, ...named(item) });
      }
    }
    for (let at = 0; at < hashes.length; at++) {
      if (!filled.has(at)) this.#find({ kind: 'missing', place: first + at });
    }
  }

  /** An event that is altered only in its audit sequence was moved: its hash with another number is the one sealed there. */
  async #relabel(run: readonly Item[], hashes: readonly Bytes[], first: number): Promise<void> {
    for (const finding of this.verdict.findings) {
      if ((finding.kind !== 'altered' && finding.kind !== 'added') || (finding.place ?? 0) < first) continue;
      const item = run.find(({ id, number }) => id === finding.id && number === finding.place);
      if (!item || item.columns.auditSequence === undefined || item.columns.auditSequence === null) continue;
      for (let at = 0; at < hashes.length; at++) {
        if (first + at === item.number) continue;
        const leaf = await leafOf({ ...item.columns, auditSequence: String(first + at) }, false);
        if (!same(leaf, hashes[at]!)) continue;
        finding.kind = 'moved';
        finding.sealedAt = first + at;
        break;
      }
    }
  }

  #find(finding: Finding): void {
    if (this.verdict.findings.length < FINDINGS_MAX) this.verdict.findings.push(finding);
    else this.verdict.more += 1;
  }
}

const named = ({ id, action }: Item) => ({ id, action });
const hexRoot = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

// Lines

type Line = Record<string, unknown>;
type Lines = AsyncGenerator<Bytes, void, void>;

async function* readLines(source: AsyncIterable<Uint8Array>): Lines {
  let parts: Uint8Array[] = [];
  let held = 0;
  for await (let chunk of source) {
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10)) {
      need(held + end <= LINE_BYTES_MAX, 'lineLong');
      yield joined(...parts, chunk.subarray(0, end));
      parts = [];
      held = 0;
      chunk = chunk.subarray(end + 1);
    }
    if (chunk.length > 0) {
      parts.push(chunk);
      held += chunk.length;
      need(held <= LINE_BYTES_MAX, 'lineLong');
    }
  }
  need(held === 0, 'lineCut');
}

async function nextLine(lines: Lines): Promise<Line> {
  const { value, done } = await lines.next();
  need(!done && value, 'bundleCut');
  return parseLine(value);
}

/** What a line says, if it is written in the only way. */
function parseLine(bytes: Bytes): Line {
  const text = fromUtf8(bytes, 'spelling');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Wrong('spelling');
  }
  // This keeps the order of members, doubles none, and writes strings as the format does, but for half surrogates.
  need(JSON.stringify(value) === text, 'spelling');
  if (text.includes('\\ud')) need(wellFormed(value), 'spelling');
  need(isObject(value), 'line');
  return value;
}

function wellFormed(value: unknown): boolean {
  if (typeof value === 'string') return !/\p{Surrogate}/u.test(value);
  if (Array.isArray(value)) return value.every(wellFormed);
  if (isObject(value)) return Object.entries(value).every(([name, inner]) => wellFormed(name) && wellFormed(inner));
  return true;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function members(value: unknown, names: readonly string[]): void {
  need(isObject(value) && Object.keys(value).join(' ') === names.join(' '), 'line');
}

function inByteOrder(names: readonly string[]): boolean {
  // By bytes of UTF-8, which is by code points.
  return names.every((name, at) => at === 0 || compareBytes(utf8(names[at - 1]!), utf8(name)) < 0);
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let at = 0; at < Math.min(a.length, b.length); at++) if (a[at] !== b[at]) return a[at]! - b[at]!;
  return a.length - b.length;
}

function readHeader(line: Line): Header {
  members(line, ['type', 'format', 'organization', 'from', 'to', 'complete', 'before']);
  const { organization, from, to, complete, before } = line;
  need(line.type === 'header' && line.format === 'tenancy-audit/1', 'format');
  need(typeof organization === 'string' && typeof complete === 'boolean' && Array.isArray(before), 'header');
  need(Number.isSafeInteger(from) && Number.isSafeInteger(to), 'header');
  const header = { organization, complete, from: from as number, to: to as number, before: before.map((hash) => unbase64(hash, 32)) };
  need(header.from >= 1 && header.from <= header.to + 1, 'header');
  if (complete) {
    const ones = [...(header.from - 1).toString(2)].filter((digit) => digit === '1').length;
    need(before.length === ones, 'header');
  } else {
    need(before.length === 0 && organization !== INSTALLATION && organization !== ACCESS, 'header');
  }
  return header;
}

async function readCheckpoint(line: Line, header: Header, keys: readonly Key[], witnesses?: Witnesses) {
  members(line, ['type', 'note']);
  need(line.type === 'checkpoint' && typeof line.note === 'string', 'line');
  const checkpoint = await openNote(line.note, keys, witnesses);
  const tree = treeOf(checkpoint.origin);
  const ofSigner = checkpoint.signers.some(({ name }) => tree === `${name}/${header.organization}`);
  need(ofSigner || (keys.length === 0 && tree.endsWith(`/${header.organization}`)), 'otherTree');
  need(checkpoint.size === BigInt(header.to), 'otherSize', { size: String(checkpoint.size), to: header.to });
  return { checkpoint, note: line.note };
}

/** A note, or a bundle, of which the first two lines count. */
async function readOlder(bytes: Bytes, keys: readonly Key[]): Promise<Checkpoint> {
  if (bytes[0] !== 123) return openNote(fromUtf8(bytes, 'note'), keys);
  const lines = readLines(
    (async function* () {
      yield bytes;
    })(),
  );
  const header = readHeader(await nextLine(lines));
  return (await readCheckpoint(await nextLine(lines), header, keys)).checkpoint;
}

// Leaves and personal data

async function leafOf(columns: Columns, record: boolean): Promise<Bytes> {
  const parts: Uint8Array[] = [LEAF, Uint8Array.of(record ? 2 : 1)];
  for (const name of record ? RECORD : COLUMNS) {
    const value = columns[name] ?? null;
    const bytes = value === null ? new Uint8Array() : utf8(value);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, value === null ? 0xffffffff : bytes.length);
    parts.push(length, bytes);
  }
  return sha256(...parts);
}

function countSealed(columns: Columns): number {
  let count = (columns.ip === null ? 0 : 1) + (columns.userAgent === null ? 0 : 1);
  try {
    const fields = (JSON.parse(columns.payload ?? '') as Record<string, unknown>)[columns.eventType ?? ''];
    for (const field of Object.values(isObject(fields) ? fields : {})) if (isObject(field) && 'sealed' in field) count += 1;
  } catch {
    // The payload counts as what it is, text. A verifier does not judge it.
  }
  return count;
}

async function opened(columns: Columns, place: string, key: Bytes, record: boolean): Promise<string> {
  let sealed: unknown;
  let bound: string;
  if (record) {
    [sealed, bound] = [columns.ip, `${columns.id}/ip`];
  } else if (place === 'ip' || place === 'userAgent') {
    [sealed, bound] = [columns[place], `${columns.commandId}/${place === 'ip' ? 'ip' : 'user_agent'}`];
  } else {
    need(place.startsWith('payload.'), 'personal');
    const field = place.slice('payload.'.length);
    try {
      sealed = JSON.parse(columns.payload ?? '');
    } catch {
      throw new Wrong('personal');
    }
    for (const name of [columns.eventType ?? '', field, 'sealed']) {
      need(isObject(sealed) && Object.hasOwn(sealed, name), 'personal');
      sealed = sealed[name];
    }
    bound = `${columns.eventId}/${field}`;
  }
  need(typeof sealed === 'string', 'personal');
  const raw = unbase64url(sealed);
  need(raw[0] === 2 && raw.length >= 29, 'personal');
  try {
    const secret = await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['decrypt']);
    const cipher = { name: 'AES-GCM', iv: raw.slice(1, 13), additionalData: utf8(bound) };
    return fromUtf8(new Uint8Array(await crypto.subtle.decrypt(cipher, secret, raw.slice(13))), 'personal');
  } catch {
    throw new Wrong('personal');
  }
}
