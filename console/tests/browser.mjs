// What browser tests share: a browser with the console open, and what must hold of every page.
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
