import { describe, expect, it } from 'vitest';
import { createClient, Fault, type TypedDocument } from '../src/index.ts';

interface Sent {
  url: string;
  authorization: string | null;
  body: { query: string; variables: Record<string, any>; extensions?: unknown };
}

/** A service that gives these answers one after another. An `Error` is a network that fails. */
function service(...answers: (Response | Error)[]) {
  const sent: Sent[] = [];
  const fetch = (async (url: string, init: RequestInit) => {
    sent.push({
      url,
      authorization: new Headers(init.headers).get('authorization'),
      body: JSON.parse(String(init.body)) as Sent['body'],
    });
    const answer = answers.shift();
    if (!answer) throw new Error('one call more than expected');
    if (answer instanceof Error) throw answer;
    return answer;
  }) as unknown as typeof globalThis.fetch;
  let tokens = 0;
  const client = createClient({
    url: 'https://tenancy.example.com/graphql',
    token: async (renew) => `token-${renew ? ++tokens : tokens}`,
    fetch,
    pauseMs: 1,
  });
  return { client, sent };
}

const json = (body: unknown, init?: ResponseInit) => new Response(JSON.stringify(body), init);

type Create = TypedDocument<
  { createProject: { project: { id: string } | null; errors: any[]; position: string | null } | null },
  { input: { name: string; idempotencyKey?: string | null } }
>;
const CREATE = 'mutation ($input: CreateProjectInput!) { createProject(input: $input) { … } }' as Create;
const created = { data: { createProject: { project: { id: 'prj_1' }, errors: [], position: 'p' } } };

describe('commands', () => {
  it('repeats a command with the same key after the network failed', async () => {
    const { client, sent } = service(new TypeError('failed to fetch'), json(created));
    const outcome = await client.mutate(CREATE, { input: { name: 'Rocket' } });
    expect(outcome.done && outcome.payload.project?.id).toBe('prj_1');
    const keys = sent.map(({ body }) => body.variables.input.idempotencyKey);
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(keys[1]).toBe(keys[0]);
  });

  it('gives each command a key of its own', async () => {
    const { client, sent } = service(json(created), json(created));
    await client.mutate(CREATE, { input: { name: 'Rocket' } });
    await client.mutate(CREATE, { input: { name: 'Rocket' } });
    const [first, second] = sent.map(({ body }) => body.variables.input.idempotencyKey);
    expect(first).not.toBe(second);
  });

  it('keeps a key that the caller chose', async () => {
    const { client, sent } = service(json(created));
    await client.mutate(CREATE, { input: { name: 'Rocket', idempotencyKey: 'mine' } });
    expect(sent[0]?.body.variables.input.idempotencyKey).toBe('mine');
  });

  it('tells a refusal with its fields', async () => {
    const refusal = { code: 'LIMIT_REACHED', message: 'full', path: null, limit: 'projects', maximum: 1, used: 1, requested: 1 };
    const { client } = service(json({ data: { createProject: { project: null, errors: [refusal], position: null } } }));
    const outcome = await client.mutate(CREATE, { input: { name: 'Rocket' } });
    if (outcome.done) throw new Error('it was not refused');
    const [first] = outcome.refusals;
    expect(first.code === 'LIMIT_REACHED' && first.maximum).toBe(1);
  });

  it('gives up after the last attempt, and says so', async () => {
    const { client, sent } = service(...Array.from({ length: 4 }, () => new TypeError('down')));
    await expect(client.mutate(CREATE, { input: { name: 'Rocket' } })).rejects.toMatchObject({ code: 'NETWORK' });
    expect(sent).toHaveLength(4);
  });
});

describe('queries', () => {
  const READ = '{ viewer { operator } }' as TypedDocument<{ viewer: { operator: boolean } }, Record<string, never>>;
  const answer = { data: { viewer: { operator: false } } };

  it('renews a token that is refused, once', async () => {
    const refused = () => json({ errors: [{ message: 'no', extensions: { code: 'UNAUTHENTICATED' } }] }, { status: 401 });
    const { client, sent } = service(refused(), json(answer));
    await client.query(READ, {});
    expect(sent.map(({ authorization }) => authorization)).toEqual(['Bearer token-0', 'Bearer token-1']);
    const other = service(refused(), refused());
    await expect(other.client.query(READ, {})).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('waits and tries again where the service is not available', async () => {
    const { client, sent } = service(json({}, { status: 503 }), json(answer));
    expect(await client.query(READ, {})).toEqual(answer.data);
    expect(sent).toHaveLength(2);
  });

  it('throws a fault with its code', async () => {
    const { client } = service(json({ data: null, errors: [{ message: 'none', extensions: { code: 'NOT_FOUND' } }] }));
    const fault = await client.query(READ, {}).catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(Fault);
    expect((fault as Fault).code).toBe('NOT_FOUND');
  });

  it('passes the positions of own writes', async () => {
    const { client, sent } = service(json(answer));
    await client.query(READ, {}, { atLeast: ['MS4x'] });
    expect(sent[0]?.body.extensions).toEqual({ atLeast: ['MS4x'] });
  });
});
