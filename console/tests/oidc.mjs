// Signing in at an OpenID provider: code flow with PKCE, renewal without leaving the page, a reload, signing out.
// CONSOLE_PROGRAM is the program; it is started here, beside the provider.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch, shoot, violations } from './browser.mjs';

const port = 18476;
const [service, issuer] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${port + 1}`];
const home = await mkdtemp(join(tmpdir(), 'console-oidc-'));
await chmod(home, 0o711);
const started = [];

function start(program, words, env) {
  const child = spawn(program, words, { env: { ...process.env, ...env }, stdio: 'ignore' });
  started.push(child);
}

async function answers(url) {
  for (let turn = 0; turn < 150; turn++) {
    const found = await fetch(url).catch(() => null);
    if (found?.ok) return;
    await new Promise((done) => setTimeout(done, 200));
  }
  throw new Error(`${url} does not answer`);
}

const browser = await launch();
try {
  start(process.execPath, ['tests/provider.mjs'], { PROVIDER_PORT: `${port + 1}`, CONSOLE_URL: service });
  await answers(`${issuer}/.well-known/openid-configuration`);
  const providers = `[{ issuer = "${issuer}", audience = ["tenancy-console"], console_client = "tenancy-console" }]`;
  start(process.env.CONSOLE_PROGRAM ?? 'tenancy', [], {
    TENANCY_DATA_DIR: join(home, 'data'),
    TENANCY_LISTEN: `127.0.0.1:${port}`,
    TENANCY_ACCESS__BUILTIN_ISSUER: 'false',
    TENANCY_ACCESS__PROVIDERS: providers,
  });
  await answers(`${service}/health/ready`);

  const context = await browser.newContext();
  const page = await context.newPage();
  const wrong = [];
  const tokens = [];
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && page.url().startsWith(service)) wrong.push(message.text());
  });
  page.on('request', (request) => {
    const authorization = request.headers().authorization;
    if (new URL(request.url()).origin === service && authorization) tokens.push(authorization);
  });
  await page.goto(`${service}/console/`);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL(`${issuer}/**`);
  await page.locator('input[name=login]').fill('ada');
  await page.locator('input[name=password]').fill('any');
  await page.locator('button[type=submit]').click();
  // Consent.
  await page.locator('button[type=submit]').click();
  await page.waitForURL(`${service}/console/**`);
  await page.locator('#main').waitFor();
  assert.equal(new URL(page.url()).search, '');
  const kept = () => page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.doesNotMatch(await kept(), /eyJ|verifier|example\.com/);
  assert.deepEqual(await violations(page), []);
  await shoot(page, 'oidc-in');
  console.log('ok a person signs in at the provider, and nothing of it is kept');

  const before = tokens.at(-1);
  const renewed = page.waitForResponse((response) => response.url() === `${issuer}/token`, { timeout: 30_000 });
  await renewed;
  await page.reload();
  await page.waitForURL(`${service}/console/**`);
  await page.locator('#main').waitFor();
  assert.notEqual(tokens.at(-1), before);
  console.log('ok the token is renewed while one works, and a reload asks nobody');

  await page.getByRole('button', { name: /^Account/ }).click();
  await page.getByRole('menuitem', { name: 'Sign out' }).click();
  await page.waitForURL(`${issuer}/**`);
  await page.locator('button[type=submit]').first().click();
  await page.waitForURL(`${service}/console/**`);
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  assert.deepEqual(wrong, []);
  console.log('ok signing out ends both sessions');
  await context.close();
} finally {
  await browser.close();
  for (const child of started) child.kill();
  await Promise.all(started.map((child) => child.exitCode ?? new Promise((done) => child.once('exit', done))));
  await rm(home, { recursive: true, force: true });
}
