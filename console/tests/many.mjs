// Time, not part of CI: how the console does in an organization with 100,000 members. Fills it through the command path by
// `tenancy import`, then measures in chromium, from the program's own pages, and prints figures beside their goals.
//     CONSOLE_PROGRAM=target/release/tenancy node tests/many.mjs
// MEMBERS says how many; the import of all takes many minutes. SCROLL_SECONDS says for how long the list is scrolled.
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { launch } from './browser.mjs';
import { end, home, startService, tenancy } from './service.mjs';

const members = Number(process.env.MEMBERS ?? 100_000);
const scrollMs = Number(process.env.SCROLL_SECONDS ?? 20) * 1000;
const LOADS = 5;
const FIRST_CONTENT_MS_MAX = 1000;
const BLOCK_MS_MAX = 100;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const load = () => loadavg().map((value) => value.toFixed(1)).join(' ');
function tell(what, value, max) {
  const verdict = max === undefined ? '' : `  ${value <= max ? 'within' : 'MISSED:'} ${max} ms`;
  console.log(`${what.padEnd(56)} ${String(Math.round(value)).padStart(8)}${verdict}`);
}

/** Collects tasks over 50 ms and how long each input took until the next frame showed its effect. */
function observe() {
  globalThis.blocks = { task: 0, event: 0 };
  const note = (kind) => (list) => {
    for (const { duration } of list.getEntries()) blocks[kind] = Math.max(blocks[kind], duration);
  };
  new PerformanceObserver(note('task')).observe({ type: 'longtask', buffered: true });
  new PerformanceObserver(note('event')).observe({ type: 'event', durationThreshold: 16, buffered: true });
}

const browser = await launch();
try {
  console.log(`${members} members, ${cpus().length} cores, load before: ${load()}`);
  const service = await startService(18486, { TENANCY_RATE_LIMITS__ENABLED: 'false', TENANCY_LOG: 'error' });
  const folder = join(home, 'import/many');
  await mkdir(folder, { recursive: true });
  // A file of an import has at most a mebibyte: ten bytes a member.
  const names = Array.from({ length: members }, (_, at) => `- m${String(at).padStart(6, '0')}\n`);
  await writeFile(join(folder, 'org.yaml'), `name: Many\nadmins:\n- founder\nmembers:\n${names.join('')}`);
  const started = Date.now();
  await new Promise((done, fail) => {
    const words = ['import', 'peribolos', join(home, 'import'), '--as', 'ops@example.com'];
    const importing = spawn(process.env.CONSOLE_PROGRAM ?? 'tenancy', words, { stdio: ['ignore', 'ignore', 'inherit'] });
    importing.once('exit', (code) => (code === 0 ? done() : fail(new Error(`the import ended with ${code}`))));
  });
  tell('import, members a second', members / ((Date.now() - started) / 1000));

  const operator = tenancy('token', '--email', 'ops@example.com', '--operator');
  const ada = tenancy('token', '--email', 'ada@example.com');
  const graphql = async (token, query) => {
    const answer = await fetch(`${service}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ query }),
    });
    const { data, errors } = await answer.json();
    if (errors) throw new Error(JSON.stringify(errors));
    return data;
  };
  const { viewer } = await graphql(ada, '{ viewer { user { id } } }');
  const { organization } = await graphql(operator, '{ organization(by: {slug: "many"}) { id } }');
  const added = await graphql(
    operator,
    `mutation { addMember(input: {organizationId: "${organization.id}", userId: "${viewer.user.id}", roles: ["owner"], reason: "measures"}) { errors { message } } }`,
  );
  if (added.addMember.errors.length > 0) throw new Error(JSON.stringify(added));

  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce' });
  await context.addInitScript(observe);
  const page = await context.newPage();
  await page.goto(tenancy('console', '--email', 'ada@example.com', '--name', 'Ada'));
  await page.locator('#main').waitFor();

  console.log(`load while measuring: ${load()}`);
  // The row of a list, and of the last events on the overview.
  const screens = { overview: ['', '#main ol li'], members: ['/members', '#main [role=row]:nth-child(10)'] };
  /** Since the navigation began, once there is content and nothing is announced as loading. */
  const there = (content) => document.querySelector(content) && !document.querySelector('#main [aria-busy=true]') && performance.now();
  for (const [name, [path, content]] of Object.entries(screens)) {
    const times = [];
    const blocks = [];
    for (let turn = 0; turn < LOADS; turn++) {
      await page.goto('about:blank');
      await page.goto(`${service}/console/o/${organization.id}${path}`, { waitUntil: 'commit' });
      const seen = await page.waitForFunction(there, content);
      times.push(await seen.jsonValue());
      await page.waitForTimeout(500);
      blocks.push(await page.evaluate(() => globalThis.blocks.task));
    }
    tell(`${name}: first content, median of ${LOADS}`, median(times), FIRST_CONTENT_MS_MAX);
    tell(`${name}: first content, slowest`, Math.max(...times), FIRST_CONTENT_MS_MAX);
    tell(`${name}: longest task while it opens, median of ${LOADS}`, median(blocks));
  }

  const reset = () => page.evaluate(() => void (globalThis.blocks = { task: 0, event: 0 }));
  const blocked = async (what) => {
    const { task, event } = await page.evaluate(() => globalThis.blocks);
    tell(`${what}: longest task`, task, BLOCK_MS_MAX);
    tell(`${what}: longest input, until it is drawn`, event, BLOCK_MS_MAX);
  };
  const last = () =>
    page.evaluate(() => Math.max(...[...document.querySelectorAll('[role=row][aria-rowindex]')].map((row) => Number(row.getAttribute('aria-rowindex')))));

  await reset();
  await page.mouse.move(700, 500);
  const until = Date.now() + scrollMs;
  while (Date.now() < until) {
    await page.mouse.wheel(0, 3000);
    await page.waitForTimeout(30);
  }
  tell(`scrolled by the wheel for ${scrollMs / 1000} s, rows`, await last());
  await blocked('wheel');

  await reset();
  await page.getByRole('row').nth(3).focus();
  for (let turn = 0; turn < 10; turn++) {
    // To the end of what is loaded, which loads more, and back to the beginning.
    await page.keyboard.press('End');
    await page.waitForTimeout(300);
    await page.keyboard.press('Home');
    await page.waitForTimeout(300);
  }
  await page.keyboard.press('End');
  await page.waitForTimeout(300);
  tell('End and Home, ten times: rows', await last());
  await blocked('End and Home');

  await reset();
  for (let turn = 0; turn < 60; turn++) await page.keyboard.press('ArrowUp');
  await blocked('sixty rows up by the arrow key');
  console.log(`load after: ${load()}`);
} finally {
  await browser.close();
  await end();
}
