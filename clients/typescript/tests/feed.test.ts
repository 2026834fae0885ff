import { describe, expect, it } from 'vitest';
import { createClient, Fault, type FeedItem } from '../src/index.ts';

const next = (position: string, action?: string) =>
  `event: next\nid: ${position}\ndata: ${JSON.stringify({
    data: { auditEvents: { position, event: action ? { action } : null } },
  })}\n\n`;
const fault = (code: string) =>
  `event: next\ndata: ${JSON.stringify({ data: null, errors: [{ message: code, extensions: { code } }] })}\n\n`;

/** A feed that gives these streams, one a connection. An `Error` in a stream cuts it. */
function feed(...streams: (string | Error)[][]) {
  const asked: { after?: string; authorization: string | null }[] = [];
  const fetch = (async (_url: string, init: RequestInit) => {
    const parts = streams.shift();
    if (!parts) throw new Error('one connection more than expected');
    const { variables } = JSON.parse(String(init.body)) as { variables: { after?: string } };
    asked.push({ ...variables, authorization: new Headers(init.headers).get('authorization') });
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      pull(controller) {
        const part = parts.shift();
        if (part === undefined) controller.close();
        else if (part instanceof Error) controller.error(part);
        else controller.enqueue(encoder.encode(part));
      },
    });
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  }) as unknown as typeof globalThis.fetch;
  let renewals = 0;
  const client = createClient({
    url: 'https://tenancy.example.com/graphql',
    token: async (renew) => `token-${renew ? ++renewals : renewals}`,
    fetch,
    pauseMs: 1,
  });
  return { client, asked };
}

async function take(count: number, items: AsyncGenerator<FeedItem<{ action: string }>>) {
  const taken: (string | null)[] = [];
  for await (const { event } of items) {
    taken.push(event?.action ?? null);
    if (taken.length === count) break;
  }
  return taken;
}

describe('the feed', () => {
  it('goes on after the last position when it was cut', async () => {
    const { client, asked } = feed(
      [next('p0'), next('p1', 'project.created'), new Error('cut')],
      [next('p1'), next('p2', 'project.renamed')],
    );
    const taken = await take(4, client.follow({ organizationId: 'org_1' }));
    expect(taken).toEqual([null, 'project.created', null, 'project.renamed']);
    expect(asked.map(({ after }) => after)).toEqual([undefined, 'p1']);
  });

  it('reads messages that arrive in pieces', async () => {
    const whole = `:\n\n${next('p1', 'member.joined')}`;
    const { client } = feed([whole.slice(0, 30), whole.slice(30, 31), whole.slice(31)]);
    expect(await take(1, client.follow({ organizationId: 'org_1' }))).toEqual(['member.joined']);
  });

  it('renews its token when that expired', async () => {
    const { client, asked } = feed([next('p1', 'a'), fault('UNAUTHENTICATED')], [next('p2', 'b')]);
    expect(await take(2, client.follow({ organizationId: 'org_1' }))).toEqual(['a', 'b']);
    expect(asked.map(({ authorization }) => authorization)).toEqual(['Bearer token-0', 'Bearer token-1']);
  });

  it('comes again when a replica stops', async () => {
    const { client } = feed([next('p1', 'a'), fault('UNAVAILABLE')], [next('p2', 'b')]);
    expect(await take(2, client.follow({ organizationId: 'org_1' }))).toEqual(['a', 'b']);
  });

  it('ends where the caller may no longer read', async () => {
    const { client, asked } = feed([next('p1', 'a'), fault('FORBIDDEN')]);
    const error = await take(9, client.follow({ organizationId: 'org_1' })).catch((error: unknown) => error);
    expect((error as Fault).code).toBe('FORBIDDEN');
    expect(asked).toHaveLength(1);
  });

  it('stops when it is told to', async () => {
    const stop = new AbortController();
    const { client } = feed([next('p1', 'a')]);
    const taken: unknown[] = [];
    for await (const item of client.follow({ organizationId: 'org_1', signal: stop.signal })) {
      taken.push(item);
      stop.abort();
    }
    expect(taken).toHaveLength(1);
  });
});
