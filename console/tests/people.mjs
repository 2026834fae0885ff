// Members, invitations, roles, settings: an organization's life among three people, axe on each page.
// CONSOLE_URL says where; codes there are addresses, as dev-session.mjs has them.
import assert from 'node:assert/strict';
import { act, check, eachLook, fine, go, launch, open, opensByTwo, row, settled, shoot, takeBack, url } from './browser.mjs';

const stamp = Date.now().toString(36);
const founder = `founder-${stamp}@example.com`;
const guest = `guest-${stamp}@example.com`;
const name = `Harbour ${stamp}`;
const browser = await launch();

/** A command by somebody who has no screen for it here. */
async function graphql(code, query, variables) {
  const session = await fetch(`${url}/console/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'tenancy-console': '1' },
    body: JSON.stringify({ code }),
  });
  const { token } = await session.json();
  const answer = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ query, variables }),
  });
  return answer.json();
}

const told = (page, text) => page.getByRole('region', { name: 'Notices' }).or(page.getByRole('alertdialog')).getByText(text).first().waitFor();

try {
  const one = await open(browser, { code: founder });
  const { page } = one;
  let base;

  await check('somebody in no organization creates one, on a page of its own', async () => {
    await page.getByRole('heading', { name: 'No organization yet' }).waitFor();
    await page.getByRole('button', { name: 'New organization' }).click();
    await page.getByLabel('Name', { exact: true }).fill(name);
    assert.equal(await page.getByLabel('Short name').inputValue(), `harbour-${stamp}`);
    await fine(page, 'create');
    await page.getByLabel('Short name').fill('No spaces allowed!');
    await page.getByRole('button', { name: 'Create' }).click();
    await page.locator('[data-invalid]').first().waitFor();
    await page.getByLabel('Short name').fill(`harbour-${stamp}`);
    await page.getByRole('button', { name: 'Create' }).click();
    await page.getByRole('heading', { name, level: 1 }).waitFor();
    base = page.url();
  });

  await check('settings: submit, then an operator verifies', async () => {
    await go(page, 'Settings');
    await opensByTwo(one, page.getByRole('heading', { name: 'Profile' }));
    await page.getByRole('button', { name: 'Submit for verification' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Submit' }).click();
    await page.getByText('The organization was submitted.').waitFor();
    const organizationId = base.split('/').at(-1);
    const { data } = await graphql(
      'operator@example.com!',
      'mutation ($input: OrganizationReviewInput!) { verifyOrganization(input: $input) { errors { message } } }',
      { input: { organizationId, reason: 'known to us' } },
    );
    assert.deepEqual(data.verifyOrganization.errors, []);
    await page.getByText('An operator has accepted this organization.').waitFor();
    await fine(page, 'settings');
  });

  await check('settings: profile, policies, a document', async () => {
    await page.getByRole('button', { name: 'Change profile' }).click();
    await page.getByRole('dialog').getByLabel('Contact address').fill('no address');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.locator('[data-invalid]').first().waitFor();
    await page.getByRole('dialog').getByLabel('Contact address').fill(`office-${stamp}@example.com`);
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('main').getByText(`office-${stamp}@example.com`).waitFor();
    await takeBack(page, 'Saved.');
    await page.getByRole('main').getByText(`office-${stamp}@example.com`).waitFor({ state: 'detached' });
    await page.getByText('Taken back.').waitFor();
    await page.getByRole('button', { name: 'Change policies' }).click();
    await page.getByRole('dialog').getByRole('button', { name: /API tokens of the member/ }).click();
    await page.getByRole('option', { name: 'are revoked' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Open a namespace' }).click();
    await page.getByLabel('Namespace', { exact: true }).fill('theme');
    await page.getByRole('dialog').getByRole('button', { name: 'Show' }).click();
    const content = page.getByRole('dialog').getByLabel('Content');
    await content.fill('{"color": ');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByText('This is no JSON').waitFor();
    await fine(page, 'settings-document');
    await content.fill('{"color": "teal"}');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('button', { name: 'Show theme' }).waitFor();
  });

  await check('roles: define, look inside, change, undo', async () => {
    await go(page, 'Roles');
    await opensByTwo(one, page.getByRole('heading', { name: 'Built-in roles' }));
    await page.getByRole('button', { name: 'New role' }).first().click();
    await page.getByRole('dialog').getByLabel('Name', { exact: true }).fill('harbour_master');
    await page.getByRole('dialog').getByLabel('Description').fill('Sees who is there.');
    await page.getByRole('dialog').getByRole('checkbox', { name: /member:read/ }).locator('xpath=ancestor::label').click();
    await fine(page, 'roles-define');
    await page.getByRole('dialog').getByRole('button', { name: 'Define' }).click();
    await page.getByText('The role harbour_master is defined.').waitFor();
    await page.getByRole('button', { name: /^harbour_master/ }).click();
    await page.getByText('Nobody holds it.').waitFor();
    await fine(page, 'roles');
    // What was open stays open while the roles are read anew.
    assert.equal(await page.getByText('Nobody holds it.').isVisible(), true);
    await page.getByRole('button', { name: 'Actions of the role harbour_master' }).click();
    await page.getByRole('menuitem', { name: 'Change' }).click();
    await page.getByRole('dialog').getByLabel('Description').fill('Changed.');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('button', { name: /Changed\./ }).waitFor();
    await takeBack(page, 'harbour_master');
    await page.getByRole('button', { name: /Sees who is there/ }).waitFor();
  });

  let link;
  await check('invitations: a link once, resent, another one revoked', async () => {
    await go(page, 'Invitations');
    await opensByTwo(one, page.getByRole('heading', { name: 'No open invitation' }));
    await fine(page, 'invitations-empty');
    const invite = async (email) => {
      await page.getByRole('button', { name: 'Invite' }).first().click();
      await page.getByRole('dialog').getByLabel('Address').fill(email);
      await page.getByRole('dialog').getByRole('button', { name: 'Invite' }).click();
    };
    await invite('no address');
    await page.locator('[data-invalid]').first().waitFor();
    await fine(page, 'invitations-refused');
    await page.getByRole('dialog').getByLabel('Address').fill(guest);
    await page.getByRole('dialog').getByRole('button', { name: 'Invite' }).click();
    await page.getByRole('heading', { name: 'Send this link' }).waitFor();
    const first = await page.getByLabel('Link', { exact: true }).inputValue();
    await fine(page, 'invitations-once');
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await row(page, guest).waitFor();
    await act(page, guest, 'New link');
    await page.getByRole('heading', { name: 'Send this link' }).waitFor();
    link = await page.getByLabel('Link', { exact: true }).inputValue();
    assert.notEqual(link, first);
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await invite(`other-${stamp}@example.com`);
    await page.getByRole('heading', { name: 'Send this link' }).waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await act(page, `other-${stamp}`, 'Revoke');
    await page.getByRole('alertdialog').getByRole('button', { name: 'Revoke' }).click();
    await row(page, `other-${stamp}`).waitFor({ state: 'detached' });
    await fine(page, 'invitations');
  });

  const two = await open(browser, { code: guest });
  await check('the invited person sees it at once, and accepts by the link', async () => {
    await two.page.getByText('Somebody invited you.').waitFor();
    await fine(two.page, 'home-invited');
    await two.page.goto(link);
    await two.page.getByText(`For ${guest},`).waitFor();
    assert.equal(new URL(two.page.url()).hash, '');
    await fine(two.page, 'mine');
    await two.page.getByRole('button', { name: 'Accept', exact: true }).first().click();
    await two.page.getByRole('heading', { name, level: 1 }).waitFor();
  });

  await check('members: roles with undo, suspend with undo', async () => {
    await go(page, 'Members');
    await opensByTwo(one, row(page, guest));
    await act(page, guest, 'Change roles');
    await page.getByRole('dialog').getByRole('checkbox', { name: /^admin/ }).locator('xpath=ancestor::label').click();
    await fine(page, 'members-roles');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await row(page, guest).getByText('admin').waitFor();
    await act(page, guest, 'Suspend');
    await row(page, guest).getByText('Suspended').waitFor();
    await takeBack(page, 'is suspended.');
    await row(page, guest).getByText('Active').waitFor();
    await fine(page, 'members');
  });

  await check('members are searched and sorted, and the filters hold', async () => {
    const search = page.getByRole('searchbox', { name: 'Name or address' });
    one.requests.length = 0;
    await search.fill(`GUEST-${stamp}`);
    await row(page, founder).waitFor({ state: 'detached' });
    await row(page, guest).waitFor();
    assert.deepEqual(one.requests, ['Members']);
    await page.getByRole('button', { name: /Which members/ }).click();
    await page.getByRole('option', { name: 'Suspended' }).click();
    await page.getByRole('heading', { name: 'No such member' }).waitFor();
    await fine(page, 'members-none');
    await page.getByRole('button', { name: /Which members/ }).click();
    await page.getByRole('option', { name: 'Active', exact: true }).click();
    await row(page, guest).waitFor();
    assert.equal(await row(page, founder).count(), 0);
    await search.fill('');
    await row(page, founder).waitFor();
    const people = () => page.getByRole('grid').getByRole('row').allInnerTexts();
    assert.match((await people())[1], new RegExp(founder));
    await page.getByRole('button', { name: /^By joining/ }).click();
    await page.getByRole('option', { name: 'By name' }).click();
    await page.getByRole('columnheader', { name: 'Person' }).and(page.locator('[aria-sort=ascending]')).waitFor();
    await settled(page);
    const [, ...sorted] = await people();
    assert.equal(sorted.length, 2);
    await fine(page, 'members-sorted');
    await page.getByRole('button', { name: /^By name/ }).click();
    await page.getByRole('option', { name: 'By joining' }).click();
    await page.getByRole('button', { name: /Which members/ }).click();
    await page.getByRole('option', { name: 'All but former' }).click();
  });

  await check('an admin is told what they may not give or take', async () => {
    await two.page.reload();
    await go(two.page, 'Members');
    await row(two.page, guest).waitFor();
    await row(two.page, founder).getByRole('button', { name: /^Actions/ }).click();
    const item = two.page.getByRole('menuitem', { name: /Remove/ });
    assert.equal(await item.getAttribute('aria-disabled'), 'true');
    await item.getByText('Only an owner can do this to an owner.').waitFor();
    await shoot(two.page, 'members-against');
    await two.page.keyboard.press('Escape');
    await act(two.page, guest, 'Change roles');
    assert.equal(await two.page.getByRole('checkbox', { name: /^owner/ }).isDisabled(), true);
    await fine(two.page, 'members-grant');
    await two.page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
  });

  await check('ownership is offered, withdrawn, offered, accepted', async () => {
    const offer = async () => {
      await go(page, 'Members');
      await act(page, guest, 'Offer ownership');
      await page.getByRole('dialog').getByRole('button', { name: 'Offer' }).click();
      await page.getByRole('dialog').waitFor({ state: 'detached' });
    };
    await offer();
    await go(page, 'Settings');
    await page.getByRole('button', { name: 'Withdraw offer' }).click();
    await page.getByRole('button', { name: 'Withdraw offer' }).waitFor({ state: 'detached' });
    await offer();
    await go(two.page, 'Settings');
    await two.page.getByRole('button', { name: 'Accept ownership' }).click();
    await two.page.getByRole('dialog').getByRole('button', { name: 'Accept ownership' }).click();
    await two.page.getByRole('dialog').waitFor({ state: 'detached' });
    await two.page.getByRole('button', { name: 'Accept ownership' }).waitFor({ state: 'detached' });
    await go(two.page, 'Members');
    await row(two.page, guest).getByText('owner', { exact: true }).waitFor();
  });

  await check('the last owner cannot leave, and is told so where they try', async () => {
    await go(two.page, 'Settings');
    await two.page.getByRole('button', { name: 'Leave', exact: true }).click();
    await two.page.getByRole('alertdialog').getByRole('button', { name: 'Leave' }).click();
    await two.page.getByRole('alertdialog', { name: /^Leave/ }).getByRole('alert').waitFor();
    await fine(two.page, 'settings-last-owner');
    await two.page.getByRole('alertdialog').getByRole('button', { name: 'Cancel' }).click();
  });

  await check('a role in use is removed with a replacement', async () => {
    await go(two.page, 'Members');
    await act(two.page, founder, 'Change roles');
    await two.page.getByRole('dialog').getByRole('checkbox', { name: /^harbour_master/ }).locator('xpath=ancestor::label').click();
    await two.page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await row(two.page, founder).getByText('harbour_master').waitFor();
    await go(two.page, 'Roles');
    await two.page.getByRole('button', { name: 'Actions of the role harbour_master' }).click();
    await two.page.getByRole('menuitem', { name: 'Remove' }).click();
    const dialog = two.page.getByRole('alertdialog', { name: /^Remove/ });
    await dialog.getByText('One member holds it').waitFor();
    await dialog.getByRole('button', { name: 'Remove' }).click();
    await dialog.getByRole('alert').waitFor();
    await dialog.getByRole('button', { name: /Replace with/ }).click();
    await two.page.getByRole('option', { name: 'guest' }).click();
    await fine(two.page, 'roles-remove');
    await dialog.getByRole('button', { name: 'Remove' }).click();
    await two.page.getByRole('button', { name: 'Actions of the role harbour_master' }).waitFor({ state: 'detached' });
  });

  await check('a removed member is out at once, stands among the former ones, and comes back', async () => {
    await go(two.page, 'Members');
    await act(two.page, founder, 'Remove');
    await two.page.getByText('They answer for no API token.').waitFor();
    await fine(two.page, 'members-remove');
    await two.page.getByRole('alertdialog').getByRole('button', { name: 'Remove' }).click();
    await row(two.page, founder).waitFor({ state: 'detached' });
    await page.reload();
    await page.getByRole('heading', { name: 'Nothing is here' }).waitFor();
    await two.page.getByRole('button', { name: /Which members/ }).click();
    await two.page.getByRole('option', { name: 'Former members' }).click();
    await row(two.page, founder).waitFor();
    await fine(two.page, 'members-former');
    await act(two.page, founder, 'Add again');
    await two.page.getByRole('dialog').getByRole('button', { name: 'Add again' }).click();
    await two.page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.reload();
    await page.locator('#main').getByRole('heading', { level: 1 }).waitFor();
  });

  await eachLook(browser, guest, {
    members: `${base}/members`,
    invitations: `${base}/invitations`,
    roles: `${base}/roles`,
    settings: `${base}/settings`,
    mine: `${url}/console/invitations`,
    create: `${url}/console/new`,
  });

  await check('deleted, and restored by undo and on the page', async () => {
    await go(two.page, 'Settings');
    for (const back of ['Undo', 'Restore']) {
      await two.page.getByRole('button', { name: 'Delete', exact: true }).click();
      await two.page.getByRole('alertdialog').getByRole('button', { name: 'Delete' }).click();
      await two.page.getByRole('heading', { name: 'This organization is deleted' }).waitFor();
      if (back === 'Restore') await fine(two.page, 'settings-deleted');
      await two.page.getByRole('button', { name: back, exact: true }).first().click();
      await two.page.getByRole('heading', { name: 'This organization is deleted' }).waitFor({ state: 'detached' });
    }
  });

  await check('nothing went wrong, and nobody else was asked', async () => {
    assert.deepEqual(two.wrong, []);
    assert.deepEqual(one.wrong, []);
  });
} finally {
  await browser.close();
}
