// The texts of a language: src/texts, and those of each screen, whose keys begin with the folder's name.
import { readdir, readFile } from 'node:fs/promises';

export async function mergeTexts(language) {
  const texts = JSON.parse(await readFile(`src/texts/${language}.json`, 'utf8'));
  const screens = (await readdir('src/screens', { withFileTypes: true })).filter((entry) => entry.isDirectory());
  for (const { name } of screens) {
    const own = await readFile(`src/screens/${name}/${language}.json`, 'utf8').catch(() => '{}');
    for (const [key, text] of Object.entries(JSON.parse(own))) {
      if (!key.startsWith(`${name}.`)) throw new Error(`${key} of screens/${name} must begin with ${name}.`);
      if (key in texts) throw new Error(`${key} is there twice`);
      texts[key] = text;
    }
  }
  return Object.fromEntries(Object.entries(texts).sort(([a], [b]) => (a < b ? -1 : 1)));
}
