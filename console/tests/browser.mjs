// What browser tests share: a browser with the console open, and what must hold of every page.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

export const url = process.env.CONSOLE_URL ?? 'http://127.0.0.1:8090';
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox'],
  });
}

/** One statement about the console. A pass ends with the first that does not hold. */
export async function check(name, run) {
  const started = Date.now();
  await run();
  console.log(`ok ${name} (${Date.now() - started} ms)`);
}

/** A person's page. Collects what no page may do: errors, requests to other hosts, violations of the policy. */
export async function open(browser, { code, at = url, width = 1280, scheme = 'light', locale = 'en-GB', motion = 'reduce' } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: scheme,
    locale,
    reducedMotion: motion,
  });
  const page = await context.newPage();
  const wrong = [];
  const requests = [];
  page.on('console', (message) => {
    if (message.type() === 'error') wrong.push(message.text());
  });
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('request', (request) => {
    const target = new URL(request.url());
    if (target.origin !== new URL(at).origin && target.protocol !== 'data:') wrong.push(`request to ${target.origin}`);
    if (target.pathname === '/graphql' && request.method() === 'POST') requests.push(request.postDataJSON().operationName);
  });
  if (code) {
    await page.goto(`${at}/console/#code=${code}`);
    await page.locator('#main').waitFor();
  }
  return { context, page, wrong, requests };
}

/** The violations that axe-core finds: none are allowed. By the debugger's protocol, which the policy does not bind. */
export async function violations(page) {
  const client = await page.context().newCDPSession(page);
  await client.send('Page.setBypassCSP', { enabled: true });
  await page.evaluate(axe);
  const found = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }),
  );
  await client.detach();
  return found.violations.map(({ id, help, nodes }) => `${id}: ${help} ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}

export async function shoot(page, name) {
  await mkdir('screenshots', { recursive: true });
  await page.screenshot({ path: `screenshots/${name}.png`, fullPage: false });
}

/** What holds of every page once it is still: it breaks no rule of accessibility, and is no wider than the window. */
export async function fine(page, name) {
  await settled(page);
  const found = await violations(page);
  await shoot(page, name);
  assert.deepEqual(found, [], name);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  assert.equal(wide, false, `${name} is wider than the window`);
}

/** The first content takes two requests at most. */
export async function opensByTwo({ page, requests }, content) {
  await content.waitFor();
  // What the page before still asks for is no request of this one.
  await settled(page);
  requests.length = 0;
  await page.reload();
  await content.waitFor();
  await settled(page);
  assert.ok(requests.length <= 2, requests.join());
}

const LOOKS = {
  dark: { scheme: 'dark' },
  narrow: { width: 360 },
  'narrow-dark': { width: 360, scheme: 'dark' },
  german: { locale: 'de-DE' },
};

/** Each screen as people with another look have it. `more` looks at what a look has besides. */
export async function eachLook(browser, code, addresses, { content = () => '#main h1', more = async () => undefined } = {}) {
  for (const [look, how] of Object.entries(LOOKS)) {
    await check(`each screen: ${look}`, async () => {
      const { page, context, wrong } = await open(browser, { code, ...how });
      for (const [screen, address] of Object.entries(addresses)) {
        await page.goto(address);
        await page.locator(content(screen)).first().waitFor({ state: 'attached' });
        await fine(page, `${screen}-${look}`);
      }
      await more(page, look, how);
      assert.deepEqual(wrong, []);
      await context.close();
    });
  }
}

/** Presses Undo in the notice that says so. */
export const takeBack = (page, told) =>
  page.getByRole('alertdialog').filter({ hasText: told }).first().getByRole('button', { name: 'Undo' }).click();

export async function settled(page) {
  await page.waitForFunction(() => !document.querySelector('[aria-busy="true"]'));
  await page.waitForTimeout(250);
}

/** To a screen by the navigation. */
export const go = (page, screen) => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: screen, exact: true }).click();

export const row = (page, text) => page.getByRole('row').filter({ hasText: text });

/** An action of the row's menu. */
export async function act(page, text, action) {
  await row(page, text).getByRole('button', { name: /^Actions/ }).click();
  await page.getByRole('menuitem', { name: action }).click();
}
