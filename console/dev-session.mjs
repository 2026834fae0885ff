// For development: what the service answers at /console/config.json and /console/session, made of `tenancy token`.
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';

const run = promisify(execFile);
const program = process.env.CONSOLE_PROGRAM ?? 'tenancy';
/** Each code names a person: `ada@example.com`, or `ops@example.com!` for an operator. A code may be used again here. */
const sessions = new Map();

export function emulateSession({ signIn = { kind: 'local' } } = {}) {
  return async (request, response, next) => {
    const path = request.url?.split('?')[0];
    const answer = (status, body, headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
      response.end(body === undefined ? '' : JSON.stringify(body));
    };
    if (path === '/console/config.json') {
      return answer(200, { signIn, apiPath: '/graphql', feedPath: '/graphql/sse', version: '0.1.0' });
    }
    if (path !== '/console/session') return next();
    if (request.headers['tenancy-console'] !== '1') return answer(403, {});
    const cookie = /console=([^;]+)/.exec(request.headers.cookie ?? '')?.[1];
    if (request.method === 'DELETE') {
      sessions.delete(cookie);
      return answer(204, undefined, { 'set-cookie': 'console=; Path=/console; HttpOnly; SameSite=Strict; Max-Age=0' });
    }
    let text = '';
    for await (const part of request) text += part;
    const { code } = text ? JSON.parse(text) : {};
    const person = code ?? sessions.get(cookie);
    if (!person || !/^[\w.+-]+@[\w.-]+!?$/.test(person)) return answer(401, {});
    const operator = person.endsWith('!');
    try {
      const { stdout } = await run(program, [
        'token',
        '--email',
        person.replace('!', ''),
        '--ttl',
        '15m',
        ...(operator ? ['--operator'] : []),
      ]);
      const id = code ? randomUUID() : cookie;
      sessions.set(id, person);
      answer(
        200,
        { token: stdout.trim(), expiresAt: new Date(Date.now() + 15 * 60_000).toISOString() },
        { 'set-cookie': `console=${id}; Path=/console; HttpOnly; SameSite=Strict` },
      );
    } catch (error) {
      console.error(error);
      answer(500, {});
    }
  };
}
