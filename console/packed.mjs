// Proves that built/ is what the sources build: every file of dist, and no other, with the same bytes once unpacked. Run after a
// build. The compressed bytes themselves are not compared: they are the compressor's.
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';

const manifest = JSON.parse(await readFile('built/manifest.json', 'utf8'));
const dist = (await readdir('dist', { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name).replace(/^dist\//, ''));
const advice = 'run `npm run build && npm run pack` and commit built/';
assert.deepEqual(Object.keys(manifest).sort(), dist.sort(), `built/ has other files than the sources build: ${advice}`);
const files = Object.values(manifest).map(({ file }) => file);
assert.deepEqual((await readdir('built')).sort(), [...files, 'manifest.json'].sort(), `built/ has files that are not served: ${advice}`);
for (const [path, { file, encoding }] of Object.entries(manifest)) {
  const bytes = await readFile(join('built', file));
  const unpacked = encoding === 'br' ? brotliDecompressSync(bytes) : bytes;
  assert.ok(unpacked.equals(await readFile(join('dist', path))), `${path} is not what the sources build: ${advice}`);
}
console.log(`${dist.length} files are what the sources build`);
