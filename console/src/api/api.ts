import { Client as UrqlClient, fetchExchange, subscriptionExchange } from 'urql';
import { type Client, createClient, type Fault, type Position, withIdempotencyKey } from '@tenancy/client';
import type { Config } from '../session/config.ts';
import type { Session } from '../session/session.ts';
import { cache } from './cache.ts';

/** Read models follow the log within moments. After this long a position has been reached everywhere. */
const POSITION_KEPT_MS = 30_000;
/** Events that arrive together make lists stale once, not one time each. */
const EVENTS_TOGETHER_MS = 200;

export interface Api {
  client: Client;
  graphql: UrqlClient;
  /** Later reads wait for this position, so that they show the caller's own writes and the feed's events. */
  reached(position: Position | null | undefined): void;
  /** Told when the feed opens and when it is cut. */
  onFeed: (listener: (state: FeedState) => void) => () => void;
}

export type FeedState = 'open' | 'cut' | 'off';

export function createApi(config: Config, session: Session): Api {
  const client = createClient({
    url: location.origin + config.apiPath,
    feedUrl: location.origin + config.feedPath,
    token: session.token,
  });
  const positions = new Map<Position, number>();
  const listeners = new Set<(state: FeedState) => void>();

  const reached: Api['reached'] = (position) => {
    if (!position) return;
    positions.delete(position);
    positions.set(position, Date.now());
    for (const oldest of [...positions.keys()].slice(0, -2)) positions.delete(oldest);
  };

  const atLeast = () => {
    for (const [position, since] of positions) {
      if (Date.now() - since > POSITION_KEPT_MS) positions.delete(position);
    }
    return [...positions.keys()];
  };

  /** urql sends by this: with the token, the idempotency key of a command, and the positions of a read. */
  const send: typeof fetch = async (target, init) => {
    const body = JSON.parse(String(init?.body)) as { query: string; variables: unknown; extensions?: object };
    if (/^\s*mutation\b/.test(body.query)) {
      const done = await client.fetch(target, { ...init, body: JSON.stringify({ ...body, variables: withIdempotencyKey(body.variables) }) });
      // Before the cache reads anew what the command made stale, so that this read waits for it too.
      reached(/"position":"([^"]+)"/.exec(await done.clone().text())?.[1]);
      return done;
    }
    const wanted = atLeast();
    if (wanted.length === 0) return client.fetch(target, init);
    const response = await client.fetch(target, {
      ...init,
      body: JSON.stringify({ ...body, extensions: { ...body.extensions, atLeast: wanted } }),
    });
    // A replica that lags, or a database that was restored: an answer that may be old is better than none.
    if (!/STALE_READ|POSITION_UNKNOWN/.test(await response.clone().text())) return response;
    positions.clear();
    return client.fetch(target, init);
  };

  const graphql = new UrqlClient({
    url: location.origin + config.apiPath,
    fetch: send,
    preferGetMethod: false,
    exchanges: [
      cache(),
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: (operation) => ({
          subscribe: (sink) => {
            const stop = new AbortController();
            const { organizationId } = operation.variables as { organizationId: string };
            const tell = (state: FeedState) => listeners.forEach((listener) => listener(state));
            void (async () => {
              let waiting: unknown[] = [];
              try {
                for await (const item of client.follow({ organizationId, signal: stop.signal, onState: tell })) {
                  reached(item.position);
                  if (!item.event) continue;
                  if (waiting.length === 0) {
                    setTimeout(() => {
                      const together = waiting;
                      waiting = [];
                      for (const auditEvents of together) sink.next({ data: { auditEvents } });
                    }, EVENTS_TOGETHER_MS);
                  }
                  waiting.push({ ...item, __typename: 'AuditFeedItem' });
                }
              } catch (fault) {
                // The service will not go on: without a feed, screens show what they read.
                sink.error(fault as Fault);
              }
              tell('off');
              sink.complete();
            })();
            return { unsubscribe: () => stop.abort() };
          },
        }),
      }),
    ],
  });

  return {
    client,
    graphql,
    reached,
    onFeed: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
