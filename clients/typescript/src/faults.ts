/** `extensions.code` of a top-level error; `docs/api.md` has the table. `NETWORK` is this client's own. */
export type FaultCode =
  | 'UNAUTHENTICATED'
  | 'FORBIDDEN'
  | 'NOT_FOUND'
  | 'BAD_USER_INPUT'
  | 'CONFLICT'
  | 'IDEMPOTENCY_KEY_REUSED'
  | 'RATE_LIMITED'
  | 'STALE_READ'
  | 'POSITION_UNKNOWN'
  | 'QUERY_TOO_EXPENSIVE'
  | 'REQUEST_TIMEOUT'
  | 'UNAVAILABLE'
  | 'INTERNAL'
  | 'NETWORK'
  | (string & {});

export interface GraphQLFault {
  message: string;
  path?: readonly (string | number)[];
  extensions?: { code?: string; retryAfterSeconds?: number };
}

/** What a caller did wrong, or what broke. A rule's refusal is none: it is data, see `Refusal`. */
export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: FaultCode;
  /** After how many seconds another try makes sense, where the service says it. */
  readonly retryAfterSeconds: number | undefined;

  constructor(code: FaultCode, message: string, options: { retryAfterSeconds?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.code = code;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  static of(errors: readonly GraphQLFault[]): Fault {
    const first = errors[0];
    const options: { retryAfterSeconds?: number; cause: unknown } = { cause: errors };
    const wait = first?.extensions?.retryAfterSeconds;
    if (wait !== undefined) options.retryAfterSeconds = wait;
    return new Fault(first?.extensions?.code ?? 'INTERNAL', first?.message ?? 'the service gave no reason', options);
  }
}
