// Signing in at an OpenID provider: code flow with PKCE, renewal without leaving the page, a reload, signing out.
// And the link of an invitation, whose reader signs in first. The program is started here, beside the provider.
import assert from 'node:assert/strict';
import { go, launch, shoot, violations } from './browser.mjs';
import { answers, end, start, startPages, startService } from './service.mjs';

const port = 18476;
const issuer = `http://127.0.0.1:${port + 1}`;
// The program's own pages are what is built. dist/ takes a server of its own.
const dist = process.env.CONSOLE_BUILT === '';
const service = `http://127.0.0.1:${dist ? port + 4 : port}`;

const browser = await launch();
try {
  start(process.execPath, ['tests/provider.mjs'], { PROVIDER_PORT: `${port + 1}`, CONSOLE_URL: service });
  await answers(`${issuer}/.well-known/openid-configuration`);
  await startService(port, {
    TENANCY_ACCESS__BUILTIN_ISSUER: 'false',
    TENANCY_ACCESS__PROVIDERS: `[{ issuer = "${issuer}", audience = ["tenancy-console"], console_client = "tenancy-console" }]`,
    TENANCY_ORGANIZATIONS__VERIFICATION_REQUIRED: 'false',
  });
  if (dist) await startPages(port + 4, { OIDC_ISSUER: issuer, OIDC_CLIENT: 'tenancy-console' });

  /** At the provider: any password does, and then consent. */
  const signIn = async (page, login) => {
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL(`${issuer}/**`);
    await page.locator('input[name=login]').fill(login);
    await page.locator('input[name=password]').fill('any');
    await page.locator('button[type=submit]').click();
    await page.locator('button[type=submit]').click();
    await page.waitForURL(`${service}/console/**`);
    await page.locator('#main').waitFor();
  };

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
  await signIn(page, 'ada');
  assert.equal(new URL(page.url()).search, '');
  const kept = (target) => target.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.doesNotMatch(await kept(page), /eyJ|verifier|example\.com/);
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

  await page.goto(`${service}/console/new`);
  await page.getByLabel('Name', { exact: true }).fill('Lighthouse');
  await page.getByRole('button', { name: 'Create' }).click();
  await page.getByRole('heading', { name: 'Lighthouse', level: 1 }).waitFor();
  await go(page, 'Invitations');
  await page.getByRole('button', { name: 'Invite' }).first().click();
  await page.getByRole('dialog').getByLabel('Address').fill('bob@example.com');
  await page.getByRole('dialog').getByRole('button', { name: 'Invite' }).click();
  const link = await page.getByLabel('Link', { exact: true }).inputValue();
  const token = link.split('#invitation=')[1];
  await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();

  const other = await browser.newContext();
  const guest = await other.newPage();
  const told = [];
  guest.on('request', (request) => {
    const { pathname, origin } = new URL(request.url());
    // The one place for it: the body of what the console asks about the invitation.
    const body = origin === service && pathname === '/graphql' ? '' : request.postData();
    told.push(`${request.url()} ${JSON.stringify(request.headers())} ${body}`);
  });
  guest.on('console', (message) => told.push(message.text()));
  await guest.goto(link);
  await guest.getByRole('button', { name: 'Sign in' }).waitFor();
  assert.ok(!(await kept(guest)).includes(token), 'the token lies in storage while nobody is at the provider');
  await signIn(guest, 'bob');
  await guest.getByText('For bob@example.com,').waitFor();
  assert.equal(guest.url(), `${service}/console/invitations`);
  assert.ok(!(await kept(guest)).includes(token), 'the token lies in storage after the return');
  assert.deepEqual(told.filter((text) => text.includes(token)), []);
  // The browser's history has none either: the way back leads to the page, not to the token.
  const { entries } = await (await other.newCDPSession(guest)).send('Page.getNavigationHistory');
  assert.ok(entries.length > 1);
  assert.deepEqual(entries.filter(({ url }) => url.includes(token)), []);
  await guest.getByRole('button', { name: 'Accept', exact: true }).first().click();
  await guest.getByRole('heading', { name: 'Lighthouse', level: 1 }).waitFor();
  await other.close();
  console.log('ok the link of an invitation survives signing in, and nobody but the service is told its token');

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
  await end();
}
