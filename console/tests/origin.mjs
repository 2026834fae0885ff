// A company's own page at another origin: the example of the client, with the client as it is packed. It works where
// `http.cors_origins` names its origin, and the browser refuses it everywhere else.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { check, launch } from './browser.mjs';
import { answers, end, home, start, startService, tenancy } from './service.mjs';

const port = 18482;
const [ours, theirs] = [port + 1, port + 2];
const client = '../clients/typescript';
const npm = (words, folder) => execFileSync('npm', [...words, '--silent', '--no-audit', '--no-fund'], { cwd: folder }).toString().trim();

const browser = await launch();
try {
  const service = await startService(port, {
    TENANCY_HTTP__CORS_ORIGINS: `http://127.0.0.1:${ours}`,
    TENANCY_ORGANIZATIONS__VERIFICATION_REQUIRED: 'false',
  });
  const token = tenancy('token', '--email', 'ada@example.com');
  const graphql = async (query) => {
    const answer = await fetch(`${service}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ query }),
    });
    return (await answer.json()).data;
  };
  const { createOrganization } = await graphql(
    'mutation { createOrganization(input: {name: "Lighthouse", slug: "lighthouse"}) { organization { id } errors { message } } }',
  );
  assert.deepEqual(createOrganization.errors, []);

  const example = join(home, 'example');
  await cp(join(client, 'example'), example, { recursive: true });
  const packed = npm(['pack', '--pack-destination', home], client).split('\n').at(-1);
  npm(['install', '--offline', join(home, packed)], example);
  for (const at of [ours, theirs]) {
    start(process.execPath, [join(example, 'serve.mjs')], { PORT: `${at}` });
    await answers(`http://127.0.0.1:${at}/`);
  }

  const visit = async (at) => {
    const page = await (await browser.newContext()).newPage();
    const told = [];
    page.on('console', (message) => told.push(message.text()));
    page.on('pageerror', (error) => told.push(String(error)));
    await page.goto(`http://127.0.0.1:${at}/`);
    await page.getByLabel('Service').fill(service);
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Connect' }).click();
    return { page, told };
  };

  await check('at the origin that is allowed it lists, invites, and hears of it by the feed', async () => {
    const { page, told } = await visit(ours);
    await page.getByText('Lighthouse (owner)').waitFor();
    await page.getByLabel('Address').fill('bob@example.com');
    await page.getByRole('button', { name: 'Invite' }).click();
    await page.getByText('bob@example.com is invited.').waitFor();
    await page.getByRole('listitem').filter({ hasText: 'member.invited' }).waitFor();
    const { organization } = await graphql(
      `{ organization(by: {id: "${createOrganization.organization.id}"}) { invitations(first: 2) { nodes { email } } } }`,
    );
    assert.deepEqual(organization.invitations.nodes, [{ email: 'bob@example.com' }]);
    assert.deepEqual(told, []);
  });

  await check('a refusal of the service reaches the page as its text', async () => {
    const { page } = await visit(ours);
    await page.getByText('Connected.').waitFor();
    await page.getByLabel('Address').fill('bob@example.com');
    await page.getByRole('button', { name: 'Invite' }).click();
    await page.getByRole('status').filter({ hasText: 'this address has an open invitation already' }).waitFor();
  });

  await check('at any other origin the browser refuses it', async () => {
    const { page, told } = await visit(theirs);
    await page.getByText('NETWORK: the service cannot be reached').waitFor();
    assert.ok(told.some((text) => text.includes('has been blocked by CORS policy')), told.join());
    assert.equal(await page.getByText('Lighthouse').count(), 0);
  });
} finally {
  await browser.close();
  await end();
}
