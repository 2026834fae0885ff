// Serves this folder at PORT, as a company's web server would: http://127.0.0.1:5000 is the origin for `http.cors_origins`.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('.', import.meta.url));
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8' };

createServer(async (request, response) => {
  const path = new URL(request.url, 'http://localhost').pathname;
  const name = path === '/' ? 'index.html' : normalize(decodeURIComponent(path));
  const body = await readFile(join(folder, name)).catch(() => null);
  if (!body) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': types[extname(name)] ?? 'application/octet-stream' }).end(body);
}).listen(Number(process.env.PORT ?? 5000), '127.0.0.1', function () {
  console.log(`http://127.0.0.1:${this.address().port}`);
});
