/** Bytes, hashes and numbers as docs/audit-format.md writes them. Only WebCrypto and what both a page and a worker have. */

export type Bytes = Uint8Array<ArrayBuffer>;

/** Why a bundle is refused. `code` names a text, `values` go into it. */
export class Wrong extends Error {
  constructor(
    readonly code: string,
    readonly values: Record<string, string | number> = {},
  ) {
    super(code);
  }
}

export function need(condition: unknown, code: string, values?: Record<string, string | number>): asserts condition {
  if (!condition) throw new Wrong(code, values);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
export const utf8 = (text: string): Bytes => encoder.encode(text);

export function fromUtf8(bytes: Uint8Array, code: string): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Wrong(code);
  }
}

export function joined(...parts: readonly Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export async function sha256(...parts: readonly Uint8Array[]): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', joined(...parts)));
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

export function base64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** RFC 4648, section 4; only the one spelling of these bytes. */
export function unbase64(text: unknown, length?: number): Bytes {
  need(typeof text === 'string', 'base64');
  let raw: string;
  try {
    raw = atob(text);
  } catch {
    throw new Wrong('base64');
  }
  need(btoa(raw) === text && (length === undefined || raw.length === length), 'base64');
  return Uint8Array.from(raw, (sign) => sign.charCodeAt(0));
}

/** RFC 4648, section 5, without padding. */
export function unbase64url(text: string): Bytes {
  need(/^[\w-]*$/.test(text), 'base64');
  return unbase64(text.replaceAll('-', '+').replaceAll('_', '/') + '='.repeat((4 - (text.length % 4)) % 4));
}

export const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** A decimal number below 2⁶⁴, without zeros before and without a sign. */
export function decimal(text: string, code: string): bigint {
  need(/^(0|[1-9][0-9]{0,19})$/.test(text), code);
  const value = BigInt(text);
  need(value < 1n << 64n, code);
  return value;
}
