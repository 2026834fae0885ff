// Webhooks, API tokens, plan and limits, the access trail: what members do there, axe on each, narrow and dark.
// CONSOLE_URL says where; CONSOLE_CODE is the code of an owner of CONSOLE_ORGANIZATION (its name).
import assert from 'node:assert/strict';
import { check, eachLook, fine, launch, open, settled, shoot, takeBack, violations } from './browser.mjs';

const code = process.env.CONSOLE_CODE ?? 'ada@example.com';
const organization = process.env.CONSOLE_ORGANIZATION ?? 'Acme';
const browser = await launch();

try {
  const { page, context, wrong, requests } = await open(browser, { code });
  page.setDefaultTimeout(15_000);
  await page.getByRole('main').getByRole('link', { name: new RegExp(organization) }).click();
  await page.getByRole('heading', { name: 'Last events' }).waitFor();
  const base = page.url().replace(/\/$/, '');
  const visit = async (path) => {
    // The page before may still ask for something.
    await page.goto('about:blank');
    requests.length = 0;
    await page.goto(`${base}${path}`);
    await page.locator('#main').getByRole('heading', { level: 1 }).waitFor();
    await settled(page);
    assert.ok(requests.length <= 2, `${path}: ${requests.join()}`);
    assert.deepEqual(await violations(page), []);
  };
  const mark = Date.now();
  const dialog = page.getByRole('dialog');
  const addresses = { webhooks: `${base}/webhooks`, tokens: `${base}/tokens`, plan: `${base}/plan`, access: `${base}/access` };

  await check('a refusal of an endpoint stands at its field', async () => {
    await visit('/webhooks');
    await shoot(page, 'webhooks');
    await page.getByRole('button', { name: 'New endpoint' }).first().click();
    await dialog.getByLabel('Address').fill('ftp://example.com');
    await dialog.getByRole('button', { name: 'New endpoint' }).click();
    await page.locator('[data-invalid]').first().waitFor();
    await fine(page, 'webhooks-refused');
  });

  await check('an endpoint for chosen events shows its secret once', async () => {
    await dialog.getByLabel('Address').fill(`https://hooks-${mark}.invalid/in`);
    await dialog.getByLabel('What it is for').fill(`Test ${mark}`);
    await dialog.getByRole('button', { name: /Which events/ }).click();
    await page.getByRole('option', { name: 'Chosen ones' }).click();
    await dialog.locator('label').filter({ hasText: 'Projects (project.*)' }).click();
    await dialog.getByRole('button', { name: /^Members/ }).click();
    await dialog.locator('label').filter({ hasText: 'member.joined' }).click();
    await fine(page, 'webhooks-create');
    await dialog.getByRole('button', { name: 'New endpoint' }).click();
    assert.match(await dialog.getByLabel('Secret', { exact: true }).inputValue(), /^whsec_/);
    await fine(page, 'webhooks-secret');
    await dialog.getByRole('button', { name: 'I have stored it' }).click();
    await page.getByRole('link', { name: `https://hooks-${mark}.invalid/in` }).waitFor();
    const count = await page.getByRole('row').filter({ hasText: 'https://' }).count();
    await page.getByRole('main').getByText(new RegExp(`^${count} (entry|entries)$`)).waitFor();
    await page.getByRole('link', { name: `https://hooks-${mark}.invalid/in` }).click();
    await page.getByRole('heading', { level: 1, name: `Test ${mark}` }).waitFor();
    await page.getByText('project.* member.joined').waitFor();
    await page.getByText('Nothing was sent yet').waitFor();
  });

  await check('a test is sent, its attempts can be looked at, and it is sent again', async () => {
    await visit(new URL(page.url()).href.slice(base.length));
    addresses.endpoint = page.url();
    await page.getByRole('button', { name: 'Send a test' }).click();
    await page.getByText('A test is on its way.').waitFor();
    const row = page.getByRole('row').filter({ hasText: 'webhook.tested' });
    await row.getByText('Being retried').waitFor({ timeout: 30_000 });
    await page.getByRole('region', { name: 'Endpoint', exact: true }).getByText('Enabled').waitFor();
    await page.getByRole('img', { name: /failed/ }).waitFor();
    assert.deepEqual(await violations(page), []);
    await row.focus();
    await page.keyboard.press('Enter');
    await dialog.getByRole('heading', { name: 'Attempts of webhook.tested' }).waitFor();
    await dialog.getByText(/lookup/).first().waitFor();
    await fine(page, 'webhooks-attempts');
    await dialog.getByRole('button', { name: 'Close' }).click();
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Send again' }).click();
    await page.getByText('It is sent again.').waitFor();
    await shoot(page, 'webhooks-endpoint');
  });

  const act = async (name) => {
    await page.getByRole('button', { name: 'Actions', exact: true }).click();
    await page.getByRole('menuitem', { name, exact: true }).click();
  };
  await check('five failures one after the other are failing', async () => {
    for (let sent = 1; sent < 5; sent++) {
      await page.getByRole('button', { name: 'Send a test' }).click();
      await page.getByRole('row').filter({ hasText: 'webhook.tested' }).nth(sent).waitFor();
    }
    await page.getByRole('region', { name: 'Endpoint', exact: true }).getByText('Failing').waitFor({ timeout: 30_000 });
    await page.getByText(/The receiver does not take what it is sent/).waitFor();
    await fine(page, 'webhooks-failing');
  });

  await check('deliveries by their state', async () => {
    await page.getByRole('button', { name: /State of the deliveries/ }).click();
    await page.getByRole('option', { name: 'Delivered' }).click();
    await page.getByText('No delivery in this state').waitFor();
    await page.getByRole('button', { name: /State of the deliveries/ }).click();
    await page.getByRole('option', { name: 'All states' }).click();
    await page.getByRole('row').filter({ hasText: 'webhook.tested' }).first().waitFor();
  });

  await check('what happened since a moment is sent again', async () => {
    await act('Send again since …');
    await fine(page, 'webhooks-replay');
    await dialog.getByRole('button', { name: /What/ }).first().click();
    await page.getByRole('option', { name: 'Everything, also what arrived' }).click();
    await dialog.getByRole('button', { name: 'Send again' }).click();
    await page.getByText(/sent again|nothing to send/).last().waitFor();
  });

  await check('change, rotate, disable and undo', async () => {
    await act('Change');
    await dialog.getByLabel('What it is for').fill(`Changed ${mark}`);
    await dialog.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('heading', { level: 1, name: `Changed ${mark}` }).waitFor();
    await takeBack(page, 'Saved.');
    await page.getByRole('heading', { level: 1, name: `Test ${mark}` }).waitFor();
    await act('Rotate the secret');
    await dialog.getByRole('button', { name: 'Rotate the secret' }).click();
    assert.match(await dialog.getByLabel('Secret', { exact: true }).inputValue(), /^whsec_/);
    await dialog.getByRole('button', { name: 'I have stored it' }).click();
    await act('Disable');
    await page.getByText('What it misses waits until it is enabled.').first().waitFor();
    await fine(page, 'webhooks-disabled');
    await takeBack(page, 'The endpoint is disabled.');
    await page.getByRole('button', { name: 'Send a test' }).waitFor();
  });

  await check('a token within the own permissions, its secret once', async () => {
    await visit('/tokens');
    await shoot(page, 'tokens');
    await page.getByRole('button', { name: 'New token' }).first().click();
    await dialog.getByLabel('Name', { exact: true }).fill(`Robot ${mark}`);
    await dialog.locator('label').filter({ hasText: /^Projects$/ }).click();
    await dialog.getByRole('button', { name: /^Projects/ }).click();
    await fine(page, 'tokens-create');
    await dialog.getByRole('button', { name: 'New token' }).click();
    assert.match(await dialog.getByLabel('Secret', { exact: true }).inputValue(), /^tnt_/);
    await shoot(page, 'tokens-secret');
    await dialog.getByRole('button', { name: 'I have stored it' }).click();
    const row = page.getByRole('row').filter({ hasText: `Robot ${mark}` });
    await row.getByRole('button', { name: /^Reach/ }).click();
    await dialog.getByText('project:delete').waitFor();
    await fine(page, 'tokens-reach');
    await dialog.getByRole('button', { name: 'Close' }).click();
  });

  await check('a token is revoked with a reason', async () => {
    const row = page.getByRole('row').filter({ hasText: `Robot ${mark}` });
    await row.getByRole('button', { name: /^Actions/ }).click();
    await page.getByRole('menuitem', { name: 'Revoke' }).click();
    const question = page.getByRole('alertdialog');
    await question.getByLabel('Reason').fill('It was in a log');
    assert.deepEqual(await violations(page), []);
    await question.getByRole('button', { name: 'Revoke' }).click();
    await row.getByText('Revoked').waitFor();
  });

  await check('plan and limits', async () => {
    await visit('/plan');
    await page.getByRole('meter', { name: 'Members' }).waitFor();
    await shoot(page, 'plan');
  });

  await check('the access trail, and one kind of it', async () => {
    await visit('/access');
    await page.getByRole('row').nth(1).waitFor();
    await shoot(page, 'access');
    await page.getByRole('button', { name: /Kind/ }).click();
    await page.getByRole('option', { name: 'Refusals' }).click();
    await fine(page, 'access-refusals');
  });

  await eachLook(browser, code, addresses);

  await check('an endpoint is deleted', async () => {
    await page.goto(addresses.endpoint);
    await act('Delete');
    await page.getByRole('alertdialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText('The endpoint was deleted.').waitFor();
    await page.getByRole('heading', { name: 'Webhooks', level: 1 }).waitFor();
    await page.getByText(`Test ${mark}`).waitFor({ state: 'detached' });
  });
  await check('nothing went wrong, and nobody else was asked', async () => assert.deepEqual(wrong, []));
  await context.close();
} finally {
  await browser.close();
}
