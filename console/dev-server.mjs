// Serves dist as the service does, under the same policy, and passes everything else on to a service that runs.
// CONSOLE_SERVICE, CONSOLE_PROGRAM and TENANCY_DATA_DIR say which; PORT where. CONSOLE_BUILT=1 serves built/ instead.
import { readFile } from 'node:fs/promises';
import { createServer, request as forward } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { emulateSession } from './dev-session.mjs';

const service = new URL(process.env.CONSOLE_SERVICE ?? 'http://127.0.0.1:8080');
const issuer = process.env.OIDC_ISSUER;
const signIn = issuer
  ? {
      kind: 'oidc',
      issuer,
      clientId: process.env.OIDC_CLIENT ?? 'console',
      scopes: process.env.OIDC_SCOPES ?? 'openid email profile',
    }
  : { kind: 'local' };
const foreign = issuer ? ` ${new URL(issuer).origin}` : '';
const headers = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    `connect-src 'self'${foreign}`,
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join('; '),
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'same-origin',
};
const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.json': 'application/json',
};
const built = process.env.CONSOLE_BUILT ? JSON.parse(await readFile('built/manifest.json', 'utf8')) : null;
const session = emulateSession({ signIn });

async function asset(path) {
  if (built) {
    const entry = built[path];
    if (!entry) return null;
    return {
      body: await readFile(join('built', entry.file)),
      type: entry.type,
      immutable: entry.immutable,
      encoding: entry.encoding,
    };
  }
  const body = await readFile(join('dist', normalize(`/${path}`))).catch(() => null);
  return body && { body, type: types[extname(path)], immutable: path.startsWith('assets/') };
}

createServer(async (request, response) => {
  const path = new URL(request.url, 'http://localhost').pathname;
  if (path === '/') return response.writeHead(302, { location: '/console/' }).end();
  if (path === '/console') return response.writeHead(302, { location: '/console/' }).end();
  if (path.startsWith('/console/')) {
    return session(request, response, async () => {
      const name = decodeURIComponent(path.slice('/console/'.length));
      const found = (name && (await asset(name))) || (name.startsWith('assets/') ? null : await asset('index.html'));
      if (!found) return response.writeHead(404, headers).end();
      response
        .writeHead(200, {
          ...headers,
          'content-type': found.type,
          'cache-control': found.immutable ? 'public, max-age=31536000, immutable' : 'no-cache',
          ...(found.encoding ? { 'content-encoding': found.encoding } : {}),
        })
        .end(found.body);
    });
  }
  const onward = forward(
    { host: service.hostname, port: service.port, path: request.url, method: request.method, headers: request.headers },
    (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    },
  );
  onward.on('error', () => response.destroy());
  response.on('close', () => onward.destroy());
  request.pipe(onward);
}).listen(Number(process.env.PORT ?? 8090), '127.0.0.1', function () {
  console.log(`http://127.0.0.1:${this.address().port}/console/#code=ada@example.com`);
});
