// Turns dist into built/: what is committed, and what the service embeds. Each file is compressed by brotli at its
// highest level, unless that gains nothing (fonts). manifest.json says how each is served.
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.json': 'application/json',
};

await rm('built', { recursive: true, force: true });
await mkdir('built');
const paths = (await readdir('dist', { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name).replace(/^dist\//, ''))
  .sort();
const manifest = {};
let whole = 0;
for (const path of paths) {
  const type = types[extname(path)];
  if (!type) throw new Error(`no type is known for ${path}`);
  const bytes = await readFile(join('dist', path));
  const small = brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: 22,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
  const gains = small.length < bytes.length * 0.98;
  const file = path.replaceAll('/', '.') + (gains ? '.br' : '');
  await writeFile(join('built', file), gains ? small : bytes);
  whole += gains ? small.length : bytes.length;
  manifest[path] = {
    file,
    type,
    // Of the file before compression, in hex: the service's ETag.
    hash: createHash('sha256').update(bytes).digest('hex'),
    ...(gains ? { encoding: 'br' } : {}),
    // The name holds a hash of the content, so it may be kept for ever.
    immutable: path.startsWith('assets/'),
  };
}
await writeFile('built/manifest.json', `${JSON.stringify(manifest, null, 2)}\n`);
console.log(`${paths.length} files, ${Math.ceil(whole / 1024)} KiB compressed`);
