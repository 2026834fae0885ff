import { type Position, type TypedDocument, withIdempotencyKey } from './documents.ts';
import { Fault, type GraphQLFault } from './faults.ts';
import { type FeedItem, type FollowOptions, follow } from './feed.ts';
import { type Outcome, outcomeOf, type PayloadOf } from './refusals.ts';

export interface ClientOptions {
  /** Of the GraphQL endpoint, for example `https://tenancy.example.com/graphql`. */
  url: string;
  /** Of the server-sent events; without it, `url` with `/sse`. */
  feedUrl?: string;
  /**
   * A token that counts now. It is asked for each attempt. `renew` is true after the service refused the last one:
   * give another then, or throw.
   */
  token: (renew: boolean) => Promise<string>;
  fetch?: typeof globalThis.fetch;
  /** How often a call is tried before the failure is told; 4 by default. */
  attemptsMax?: number;
  /** Of the first pause between attempts; it doubles, and half of it is chance. 300 by default. */
  pauseMs?: number;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** Positions that the answer must have reached: those of the caller's own writes. */
  atLeast?: readonly Position[];
}

export interface Client {
  /** Reads. Throws a `Fault`. */
  query<Result, Variables>(
    document: TypedDocument<Result, Variables>,
    variables: Variables,
    options?: CallOptions,
  ): Promise<Result>;
  /**
   * Commands: a document with one root field and a variable `input`, which gets an idempotency key. A failure of the
   * network is tried again with the same key, so the command is done at most once. Throws a `Fault`.
   */
  mutate<Result, Variables>(
    document: TypedDocument<Result, Variables>,
    variables: Variables,
    options?: CallOptions,
  ): Promise<Outcome<PayloadOf<Result>>>;
  /** The live feed of an organization, without gap or repetition, whatever cuts it. */
  follow<Event = FeedEvent>(options: FollowOptions): AsyncGenerator<FeedItem<Event>, void, void>;
  /**
   * `fetch` with the token and the attempts of this client, for libraries that send documents by themselves. A
   * mutation has to carry its idempotency key: see `withIdempotencyKey`.
   */
  fetch: typeof globalThis.fetch;
}

/** What `follow` reads of an event unless another selection is given. */
export interface FeedEvent {
  id: string;
  action: string;
  subjectId: string;
  recordedAt: string;
}

export function createClient(options: ClientOptions): Client {
  const fetchOnce = options.fetch ?? globalThis.fetch.bind(globalThis);
  const attemptsMax = options.attemptsMax ?? 4;
  const pauseMs = options.pauseMs ?? 300;

  const call: typeof globalThis.fetch = async (target, init) => {
    let renew = false;
    let renewed = false;
    for (let attempt = 1; ; attempt++) {
      const headers = new Headers(init?.headers);
      headers.set('authorization', `Bearer ${await options.token(renew)}`);
      renew = false;
      let response: Response;
      try {
        response = await fetchOnce(target, { ...init, headers });
      } catch (error) {
        if (init?.signal?.aborted) throw error;
        if (attempt >= attemptsMax) throw new Fault('NETWORK', 'the service cannot be reached', { cause: error });
        await pause(backoff(pauseMs, attempt), init?.signal);
        continue;
      }
      if (response.status === 401 && !renewed) {
        renew = renewed = true;
        continue;
      }
      if (again(response.status) && attempt < attemptsMax) {
        const wait = Number(response.headers.get('retry-after'));
        await response.body?.cancel();
        await pause(wait > 0 ? Math.min(wait, 30) * 1000 : backoff(pauseMs, attempt), init?.signal);
        continue;
      }
      return response;
    }
  };

  const send = async <Result>(document: string, variables: unknown, how: CallOptions): Promise<Result> => {
    const body: Record<string, unknown> = { query: document, variables };
    if (how.atLeast?.length) body.extensions = { atLeast: how.atLeast };
    const response = await call(options.url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/graphql-response+json, application/json',
      },
      body: JSON.stringify(body),
      ...(how.signal ? { signal: how.signal } : {}),
    });
    let answer: { data?: Result | null; errors?: GraphQLFault[] };
    try {
      answer = (await response.json()) as typeof answer;
    } catch (cause) {
      throw new Fault('NETWORK', `the answer cannot be read (status ${response.status})`, { cause });
    }
    if (answer.errors?.length) throw Fault.of(answer.errors);
    if (!answer.data) throw new Fault('INTERNAL', `the answer has no data (status ${response.status})`);
    return answer.data;
  };

  return {
    query: (document, variables, how = {}) => send(document.toString(), variables, how),
    mutate: async <Result, Variables>(
      document: TypedDocument<Result, Variables>,
      variables: Variables,
      how: CallOptions = {},
    ) => outcomeOf<Result>((await send<Result>(document.toString(), withIdempotencyKey(variables), how)) as Result),
    follow: (how) => follow({ ...options, fetch: fetchOnce, pauseMs, feedUrl: options.feedUrl ?? `${options.url}/sse` }, how),
    fetch: call,
  };
}

/** 408, 429, 502, 503, 504: nothing was executed, or the idempotency key finds what was. */
function again(status: number): boolean {
  return status === 408 || status === 429 || (status >= 502 && status <= 504);
}

/** Doubles with each attempt up to 15 seconds; half of it is chance, so that many clients do not come at once. */
export function backoff(firstMs: number, attempt: number): number {
  const whole = Math.min(firstMs * 2 ** (attempt - 1), 15_000);
  return whole / 2 + (Math.random() * whole) / 2;
}

export function pause(ms: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
