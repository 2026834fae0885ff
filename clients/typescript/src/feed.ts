import { backoff, pause } from './client.ts';
import type { Position } from './documents.ts';
import { Fault, type GraphQLFault } from './faults.ts';

export interface FollowOptions {
  organizationId: string;
  /** Everything after this; from now on, without. */
  after?: Position;
  /** Only events of these kinds: the names of `AuditAction`. */
  actions?: readonly string[];
  /** What to read of an event; `id action subjectId recordedAt` by default. */
  selection?: string;
  signal?: AbortSignal;
  /** Told when the feed is open, and when it was cut and waits to come again. */
  onState?: (state: 'open' | 'cut') => void;
  /** A feed that says nothing for so long counts as cut; 90,000 by default. The service speaks more often. */
  silenceMaxMs?: number;
}

export interface FeedItem<Event> {
  /** Null where only the position moved. */
  event: Event | null;
  /** Keep it beside what was made of the event: it is the only state. */
  position: Position;
}

interface Transport {
  feedUrl: string;
  token: (renew: boolean) => Promise<string>;
  fetch: typeof globalThis.fetch;
  pauseMs: number;
}

/** These come again after any pause: to go on would be of no use. */
const FINAL = new Set(['FORBIDDEN', 'NOT_FOUND', 'POSITION_UNKNOWN', 'BAD_USER_INPUT', 'GRAPHQL_VALIDATION_FAILED']);

/** Ends when `signal` is aborted. Throws a `Fault` where the service will not go on. */
export async function* follow<Event>(
  transport: Transport,
  options: FollowOptions,
): AsyncGenerator<FeedItem<Event>, void, void> {
  const { signal } = options;
  let position = options.after;
  let failures = 0;
  let renew = false;
  let refusedTokens = 0;
  while (!signal?.aborted) {
    // Of this attempt alone, so that silence can end it without ending the feed.
    const attempt = new AbortController();
    const end = () => attempt.abort();
    signal?.addEventListener('abort', end, { once: true });
    let quiet: ReturnType<typeof setTimeout> | undefined;
    const heard = () => {
      clearTimeout(quiet);
      quiet = setTimeout(end, options.silenceMaxMs ?? 90_000);
    };
    try {
      const token = await transport.token(renew);
      renew = false;
      heard();
      const response = await transport.fetch(transport.feedUrl, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          accept: 'text/event-stream',
        },
        body: JSON.stringify({
          query: document(options.selection ?? 'id action subjectId recordedAt'),
          variables: { organizationId: options.organizationId, after: position, actions: options.actions },
        }),
        signal: attempt.signal,
      });
      if (!response.ok || !response.body || !response.headers.get('content-type')?.includes('event-stream')) {
        throw await faultIn(response);
      }
      options.onState?.('open');
      for await (const message of messages(response.body, heard)) {
        if (message.event !== 'next') {
          if (message.event === 'complete') break;
          continue;
        }
        const answer = JSON.parse(message.data) as {
          data?: { auditEvents: FeedItem<Event> } | null;
          errors?: GraphQLFault[];
        };
        if (answer.errors?.length) throw Fault.of(answer.errors);
        if (!answer.data) continue;
        failures = refusedTokens = 0;
        position = answer.data.auditEvents.position;
        yield answer.data.auditEvents;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof Fault) {
        if (FINAL.has(error.code)) throw error;
        if (error.code === 'UNAUTHENTICATED') {
          // One renewal answers an expired token. A fresh token that is refused twice will be refused again.
          if (++refusedTokens > 2) throw error;
          renew = true;
        }
      }
    } finally {
      clearTimeout(quiet);
      signal?.removeEventListener('abort', end);
      attempt.abort();
    }
    if (signal?.aborted) return;
    options.onState?.('cut');
    failures++;
    await pause(backoff(transport.pauseMs, failures), signal).catch(() => undefined);
  }
}

function document(selection: string): string {
  return `subscription Follow($organizationId: ID!, $after: Position, $actions: [AuditAction!]) {
    auditEvents(organizationId: $organizationId, after: $after, actions: $actions) {
      position
      event { __typename ${selection} }
    }
  }`;
}

async function faultIn(response: Response): Promise<Fault> {
  try {
    const answer = (await response.json()) as { errors?: GraphQLFault[] };
    if (answer.errors?.length) return Fault.of(answer.errors);
  } catch {
    // A proxy's page: the status is all there is.
  }
  return new Fault(response.status === 401 ? 'UNAUTHENTICATED' : 'NETWORK', `the feed answered ${response.status}`);
}

interface Message {
  event: string;
  data: string;
}

/** The messages of a stream of server-sent events, as the HTML standard has them. */
async function* messages(body: ReadableStream<Uint8Array>, heard: () => void): AsyncGenerator<Message> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let event = 'message';
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      rest += decoder.decode(value, { stream: true });
      // A carriage return at the very end may be half of a line's end.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') {
          if (data.length > 0 || event !== 'message') yield { event, data: data.join('\n') };
          event = 'message';
          data = [];
          continue;
        }
        if (line.startsWith(':')) continue;
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'event') event = value;
        else if (field === 'data') data.push(value);
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
