// The operators' plane in a browser. CONSOLE_OPERATOR is the code of an operator. CONSOLE_WAITING holds the names of two
// organizations that wait for verification: both are decided here.
// CONSOLE_OWNER is the id of an owner, who is not erased. CONSOLE_PERSON is the id of a user without organization: they are.
import assert from 'node:assert/strict';
import { act, check, eachLook, fine, go, launch, open, opensByTwo, row, settled, shoot, takeBack, url, violations } from './browser.mjs';

const code = process.env.CONSOLE_OPERATOR ?? 'operator@example.com!';
const waiting = (process.env.CONSOLE_WAITING ?? '').split(',').filter(Boolean);
const browser = await launch();
const addresses = {};

try {
  const operator = await open(browser, { code });
  const { page, context, wrong, requests } = operator;
  const visit = async (name, path) => {
    addresses[name] = `${url}/console/operate${path}`;
    await page.goto(addresses[name]);
    await page.locator('#main').getByRole('heading', { level: 1 }).waitFor();
    // The list or the first card is there, not only the frame.
    await page.locator('[role="grid"], section').first().waitFor();
    await fine(page, name);
  };

  await check('the queue takes two requests at most', async () => {
    await visit('queue', '');
    await opensByTwo(operator, page.getByRole('form', { name: 'Decision' }));
  });

  if (waiting.length > 1) {
    await check('a decision without a reason is refused at its field', async () => {
      await page.getByRole('button', { name: `Look at ${waiting[0]}`, exact: true }).click();
      await page.getByRole('heading', { name: waiting[0], level: 2 }).waitFor();
      await page.getByRole('button', { name: 'Verify', exact: true }).click();
      await page.locator('[data-invalid]').first().waitFor();
      await fine(page, 'queue-refused');
    });
    await check('a verified organization leaves the queue, and the next one is open', async () => {
      await page.getByLabel('Reason').fill('Known customer');
      await page.getByRole('button', { name: 'Verify', exact: true }).click();
      await page.getByText(`${waiting[0]} is verified.`).waitFor();
      await page.getByRole('heading', { name: waiting[1], level: 2 }).waitFor();
      await page.getByRole('button', { name: `Look at ${waiting[0]}`, exact: true }).waitFor({ state: 'detached' });
      await fine(page, 'queue-next');
    });
    await check('undo brings it back', async () => {
      await takeBack(page, `${waiting[0]} is verified.`);
      await page.getByRole('button', { name: `Look at ${waiting[0]}`, exact: true }).waitFor({ timeout: 25_000 });
    });
  }

  await check('the search finds an organization', async () => {
    await visit('organizations', '/organizations');
    await page.getByLabel('Name or short name').fill(waiting[1] ?? 'a');
    await page.waitForTimeout(600);
    await settled(page);
    assert.match(page.url(), /search=/);
    await page.getByRole('grid').getByRole('link').first().click();
    await page.getByRole('heading', { name: 'What you can do' }).waitFor();
    await fine(page, 'organization');
    addresses.organization = page.url();
  });

  await check('one organization takes two requests at most', async () => {
    await opensByTwo(operator, page.getByRole('heading', { name: 'What you can do' }));
  });

  if (waiting.length > 1) {
    const press = async (button, reason, fill = async () => undefined) => {
      await page.getByRole('button', { name: button, exact: true }).first().click();
      const dialog = page.locator('[role="dialog"], [role="alertdialog"]').last();
      await dialog.getByLabel('Reason').fill(reason);
      await fill(dialog);
      await fine(page, `organization-${button.toLowerCase().replace(/\W+/g, '-')}`);
      await dialog.getByRole('button', { name: button === 'Set the limit: Projects' ? 'Set' : button, exact: true }).click();
    };
    await check('block and undo', async () => {
      await press('Block', 'Complaints');
      await page.getByText('is blocked.').waitFor();
      await takeBack(page, 'is blocked.');
      await page.getByText('Taken back.').waitFor();
      await page.getByRole('button', { name: 'Block', exact: true }).waitFor();
    });
    await check('deactivate and activate', async () => {
      await press('Deactivate', 'Rests');
      await page.getByText('is inactive.').waitFor();
      await press('Activate', 'Goes on');
      await page.getByText('is active again.').waitFor();
    });
    await check('a legal hold is set and released', async () => {
      await press('Set legal hold', 'Court order');
      await page.getByText(/Legal hold: Court order/).waitFor();
      await shoot(page, 'organization-held');
      await press('Release hold', 'Court order ended');
      await page.getByText(/Legal hold: Court order/).waitFor({ state: 'detached' });
    });
    await check('a limit is set and given back to the plan', async () => {
      await press('Set the limit: Projects', 'Trial', async (dialog) => {
        await dialog.getByRole('button', { name: /How many/ }).click();
        await page.getByRole('option', { name: 'At most' }).click();
        await dialog.getByLabel('Maximum').fill('3');
      });
      await page.getByText('0 of 3').first().waitFor();
      await press('Set the limit: Projects', 'Trial is over', async (dialog) => {
        await dialog.getByRole('button', { name: /How many/ }).click();
        await page.getByRole('option', { name: 'As the plan says' }).click();
      });
      await page.getByText('0 of 3').first().waitFor({ state: 'detached' });
    });
    await check('a plan that is not there is refused at its field', async () => {
      await press('Change plan', 'Upgrade', (dialog) => dialog.getByLabel('Plan', { exact: true }).fill('gold'));
      await page.getByText(/there is no plan/).waitFor();
      await page.getByRole('button', { name: 'Cancel' }).click();
    });
    await check('delete and restore', async () => {
      await press('Delete', 'Asked for');
      await page.getByText('is deleted.').waitFor();
      await press('Restore', 'Asked again');
      await page.getByText('is restored.').waitFor();
    });
  }

  await check('what an operator does inside an organization is taken back with its reason', async () => {
    await page.goto(`${url}/console/operate/organizations?search=acme-robotics`);
    await page.getByRole('grid').getByRole('link', { name: 'Acme Robotics' }).click();
    await page.getByRole('link', { name: 'Open as its members see it' }).click();
    await go(page, 'Projects');
    await act(page, 'project-7', 'Archive');
    await page.getByRole('dialog').getByLabel('Reason').fill('Tidying up');
    await page.getByRole('dialog').getByRole('button', { name: 'Archive' }).click();
    await row(page, 'project-7').getByText('Archived').waitFor();
    await takeBack(page, 'was archived');
    await row(page, 'project-7').getByText('Active').waitFor();
    await go(page, 'Audit trail');
    await row(page, 'project.unarchived').first().click();
    await page.getByRole('dialog').getByText(/Taken back at once: Tidying up/).first().waitFor();
    await fine(page, 'operator-undo');
  });

  const owner = process.env.CONSOLE_OWNER;
  const person = process.env.CONSOLE_PERSON;
  await check('users stand in a list, the newest first', async () => {
    await visit('users', '/users');
    await page.getByRole('grid').waitFor();
    await page.getByRole('button', { name: 'Open', exact: true }).click();
    await page.getByText('That is no id of a user').waitFor();
  });
  await check('users are searched by name or address, by one request', async () => {
    const search = page.getByRole('searchbox', { name: 'Name or address' });
    requests.length = 0;
    await search.fill('ada@exam');
    await page.getByRole('row').filter({ hasText: 'ada@example.com' }).getByText('Let in').waitFor();
    assert.deepEqual(requests, ['FoundUsers']);
    await fine(page, 'users-found');
    await search.fill('no such person');
    await page.getByText('No such user').waitFor();
    await search.fill('');
    await page.getByRole('button', { name: /Whom to list/ }).click();
    await page.getByRole('option', { name: 'Everybody' }).click();
    await page.getByRole('row').filter({ hasText: 'ada@example.com' }).getByText('Let in').waitFor();
  });
  const erase = async (id, reason) => {
    await page.getByRole('button', { name: 'Erase', exact: true }).click();
    const dialog = page.getByRole('alertdialog');
    await dialog.getByLabel('Type the id to confirm').fill(id);
    await dialog.getByLabel('Reason').fill(reason);
    assert.deepEqual(await violations(page), []);
    await dialog.getByRole('button', { name: 'Erase', exact: true }).click();
    return dialog;
  };
  if (owner && person) {
    await check('an erasure says what holds it up', async () => {
      await page.getByLabel('Id of a user').fill(owner);
      await page.getByRole('button', { name: 'Open', exact: true }).click();
      await page.getByRole('heading', { name: 'Memberships' }).waitFor();
      await settled(page);
      await shoot(page, 'user');
      addresses.user = page.url();
      const dialog = await erase(owner, 'asked by letter');
      await dialog.getByRole('alert').waitFor();
      console.log(await dialog.getByRole('alert').innerText());
      await shoot(page, 'user-held');
      await dialog.getByRole('button', { name: 'Cancel' }).click();
    });
    await check('revoke, undo, and erase for good', async () => {
      await page.goto(`${url}/console/operate/users/${person}`);
      await page.getByRole('button', { name: 'Revoke', exact: true }).click();
      await page.getByRole('alertdialog').getByLabel('Reason').fill('Key was lost');
      await page.getByRole('alertdialog').getByRole('button', { name: 'Revoke', exact: true }).click();
      await page.getByText('is revoked.').waitFor();
      await page.getByRole('button', { name: 'Reinstate', exact: true }).waitFor();
      await takeBack(page, 'is revoked.');
      await page.getByRole('button', { name: 'Revoke', exact: true }).waitFor();
      const dialog = await erase('usr_another', 'asked by letter');
      await dialog.getByText('That is not the id').waitFor();
      await shoot(page, 'user-erase');
      await dialog.getByLabel('Type the id to confirm').fill(person);
      await dialog.getByRole('button', { name: 'Erase', exact: true }).click();
      await page.getByText('No reason that names the person was found.').waitFor();
      await page.getByText('Nothing personal is left').waitFor();
      await fine(page, 'user-erased');
    });
  }
  await check('every event, filtered, and as JSON', async () => {
    requests.length = 0;
    await visit('every-event', '/audit');
    await page.getByRole('grid').waitFor();
    assert.ok(requests.length <= 2, requests.join());
    await page.getByRole('button', { name: /^Details of/ }).first().click();
    await page.getByRole('dialog').waitFor();
    await fine(page, 'every-event-json');
    await page.getByRole('button', { name: 'Close' }).last().click();
    await page.getByLabel('From', { exact: true }).fill('2099-01-01T00:00');
    await page.getByRole('button', { name: 'Filter', exact: true }).click();
    await page.getByText('No such event').waitFor();
  });
  await check('the installation’s state', async () => {
    requests.length = 0;
    await visit('installation', '/installation');
    await page.getByRole('heading', { name: 'Read models' }).waitFor();
    assert.ok(requests.length <= 2, requests.join());
    await page.getByRole('button', { name: 'Read again' }).click();
    await settled(page);
  });
  await check('nothing went wrong, and nobody else was asked', async () => assert.deepEqual(wrong, []));
  await context.close();

  await check('members are not shown the operators’ plane', async () => {
    const { page, context } = await open(browser, { code: process.env.CONSOLE_CODE ?? 'ada@example.com' });
    await page.goto(`${url}/console/operate`);
    await page.getByRole('heading', { name: 'You may not see this' }).waitFor();
    await context.close();
  });

  await eachLook(browser, code, addresses, { content: () => '[role="grid"], section' });
} finally {
  await browser.close();
}
