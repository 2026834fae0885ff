// A newcomer's first hour in one piece: from the start in a terminal to a history that somebody altered in the database.
// The newcomer's pages come from the program itself. The other person is no operator, so they sign in at dev-server.mjs.
import assert from 'node:assert/strict';
import { act, check, go, launch, open, row, settled, shoot, violations } from './browser.mjs';
import { end, startInTerminal, startPages, tamper, tenancy } from './service.mjs';

const port = 18478;
const browser = await launch();
try {
  const { service, link: first } = await startInTerminal(port);
  const pages = await startPages(port + 1);

  const one = await open(browser, { at: service, code: first.split('#code=')[1] });
  const { page } = one;
  const dialog = page.getByRole('dialog');
  await check('the link that the start prints opens the console, and leaves no trace in the address', async () => {
    await page.getByRole('heading', { name: 'No organization yet' }).waitFor();
    assert.equal(new URL(page.url()).hash, '');
  });

  let home;
  await check('a first organization is created and submitted', async () => {
    await page.getByRole('button', { name: 'New organization' }).click();
    await page.getByLabel('Name', { exact: true }).fill('Lighthouse');
    await page.getByRole('button', { name: 'Create' }).click();
    await page.getByRole('heading', { name: 'Lighthouse', level: 1 }).waitFor();
    home = new URL(page.url()).pathname;
    await go(page, 'Settings');
    await page.getByRole('button', { name: 'Submit for verification' }).click();
    await dialog.getByRole('button', { name: 'Submit' }).click();
    await page.getByText('The organization was submitted.').waitFor();
  });

  const operate = async (screen) => {
    await page.getByRole('button', { name: /^Organization/ }).click();
    await page.getByRole('menuitem', { name: 'Operations' }).click();
    if (screen) await go(page, screen);
  };
  await check('the operator verifies it', async () => {
    await operate();
    await page.getByRole('heading', { name: 'Lighthouse', level: 2 }).waitFor();
    await page.getByLabel('Reason').fill('Our own');
    await page.getByRole('button', { name: 'Verify', exact: true }).click();
    await page.getByText('Lighthouse is verified.').waitFor();
  });

  let link;
  await check('a colleague is invited by a link', async () => {
    await page.goto(`${service}${home}/invitations`);
    await page.getByRole('button', { name: 'Invite' }).first().click();
    await dialog.getByLabel('Address').fill('bob@example.com');
    await dialog.locator('label').filter({ hasText: /^admin/ }).click();
    await dialog.getByRole('button', { name: 'Invite' }).click();
    link = await page.getByLabel('Link', { exact: true }).inputValue();
    await dialog.getByRole('button', { name: 'Close' }).click();
  });

  const two = await open(browser, { at: pages, code: 'bob@example.com' });
  await check('they accept in a second browser, and the first one sees it by itself', async () => {
    await go(page, 'Members');
    await row(page, 'Operator').waitFor();
    assert.ok(link.startsWith(`${service}/console/invitations#invitation=`), 'the link leads to the console');
    await two.page.goto(link.replace(service, pages));
    await two.page.getByRole('button', { name: 'Accept', exact: true }).first().click();
    await two.page.getByRole('heading', { name: 'Lighthouse', level: 1 }).waitFor();
    await row(page, 'bob@example.com').getByText('admin').waitFor();
  });

  await check('the last project that the limit allows is taken by the one, and refused to the other', async () => {
    await operate('All organizations');
    await page.getByRole('grid').getByRole('link', { name: 'Lighthouse' }).click();
    await page.getByRole('button', { name: 'Set the limit: Projects' }).click();
    await dialog.getByRole('button', { name: /How many/ }).click();
    await page.getByRole('option', { name: 'At most' }).click();
    await dialog.getByLabel('Maximum').fill('1');
    await dialog.getByLabel('Reason').fill('A trial');
    await dialog.getByRole('button', { name: 'Set', exact: true }).click();
    await page.getByText('The limit is set: Projects.').waitFor();

    const begin = async (target, name) => {
      await target.getByRole('button', { name: 'New project' }).first().click();
      await target.getByRole('dialog').getByLabel('Name', { exact: true }).fill(name);
      await target.getByRole('dialog').getByLabel('Short name').fill(name.toLowerCase().replace(' ', '-'));
      return target.getByRole('dialog').getByRole('button', { name: 'New project' });
    };
    await two.page.goto(`${pages}${home}/projects`);
    const late = await begin(two.page, 'Second lamp');
    await page.goto(`${service}${home}/projects`);
    await (await begin(page, 'First lamp')).click();
    await page.getByText('First lamp was created.').waitFor();
    await late.click();
    await two.page.getByRole('dialog').getByRole('alert').getByText('1 of at most 1 projects are used').waitFor();
    await two.page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
    // From here on the button says so beforehand.
    await page.getByRole('button', { name: /New project.*1 of 1 are used/ }).waitFor();
  });

  await check('the refusal stands in the audit trail', async () => {
    await go(page, 'Audit trail');
    await page.getByRole('row').filter({ hasText: 'bob@example.com reached the limit of' }).waitFor();
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'story-trail');
  });

  const verify = async () => {
    await page.getByRole('button', { name: 'Verify the whole trail' }).click();
    await page.getByRole('heading', { name: 'Outcome' }).waitFor();
    return page.getByRole('status').filter({ hasText: /Verified|Refused|no signature/ }).innerText();
  };
  await check('the browser verifies the trail', async () => {
    await go(page, 'Verify');
    await page.getByLabel('Verifier key').fill(tenancy('audit', 'key'));
    assert.match(await verify(), /^Verified/m);
  });

  await check('an event that is altered in the database is found, and named', async () => {
    const [place, id] = tamper(
      `UPDATE events SET payload = replace(payload::text, 'First lamp', 'Third lamp')::json
       WHERE event_type = 'ProjectCreated' RETURNING audit_sequence, event_id`,
    ).split('|');
    assert.match(await verify(), /^Refused/m);
    const finding = page.getByRole('listitem').filter({ hasText: `Event ${place} was altered since it was sealed.` });
    await finding.getByText(`ProjectCreated ${id}`).waitFor();
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'story-refused');
  });

  await check('a removed member is out at once, without a reload', async () => {
    await two.page.goto(`${pages}${home}/members`);
    await row(two.page, 'Operator').waitFor();
    await two.page.getByText('Live', { exact: true }).waitFor();
    await go(page, 'Members');
    await act(page, 'bob@example.com', 'Remove');
    await page.getByRole('alertdialog').getByRole('button', { name: 'Remove' }).click();
    await row(page, 'bob@example.com').waitFor({ state: 'detached' });
    await two.page.getByRole('heading', { name: 'Nothing is here' }).waitFor({ timeout: 10_000 });
    await settled(two.page);
    assert.deepEqual(await violations(two.page), []);
    await shoot(two.page, 'story-out');
  });

  await check('nothing went wrong, and nobody else was asked', async () => {
    assert.deepEqual(one.wrong, []);
    assert.deepEqual(two.wrong, []);
  });
} finally {
  await browser.close();
  await end();
}
