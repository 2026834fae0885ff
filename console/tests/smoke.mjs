// The foundation in a browser: sign-in, both first screens, a project's whole way, axe on each page.
// CONSOLE_URL says where; CONSOLE_CODE and CONSOLE_OTHER_CODE are codes of two people.
import assert from 'node:assert/strict';
import { check, eachLook, fine, launch, open, opensByTwo, settled, shoot, takeBack, url, violations } from './browser.mjs';

const code = process.env.CONSOLE_CODE ?? 'ada@example.com';
const used = process.env.CONSOLE_USED_CODE ?? 'wrong';
const browser = await launch();

try {
  await check('a code that does not count says so', async () => {
    const { page, context, wrong } = await open(browser);
    await page.goto(`${url}/console/#code=${used}`);
    await page.getByRole('heading', { name: 'This link was used already' }).waitFor();
    assert.equal(new URL(page.url()).hash, '');
    await fine(page, 'sign-in-used');
    // The status of the refused code is all that the console logs.
    assert.deepEqual(wrong.filter((text) => !text.includes('401')), []);
    await context.close();
  });

  const person = await open(browser, { code });
  const { page, context, wrong, requests } = person;

  await check('signing in leaves nothing in the address or the storage', async () => {
    await page.getByRole('heading', { name: 'Organizations' }).waitFor();
    assert.equal(new URL(page.url()).hash, '');
    const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
    assert.doesNotMatch(kept, /eyJ|tnt_|example\.com/);
    await fine(page, 'home');
  });

  await check('the overview takes two requests at most', async () => {
    await page.getByRole('main').getByRole('link', { name: /Acme/ }).click();
    await opensByTwo(person, page.getByRole('heading', { name: 'Last events' }));
    await fine(page, 'overview');
  });

  await check('events by day are drawn, said in a sentence, and stand in a table', async () => {
    const card = page.getByRole('region', { name: 'Events by day' });
    const says = await card.getByText(/events in the last 30 days/).innerText();
    await card.getByRole('img', { name: says, exact: true }).waitFor();
    await card.getByText('As a table').click();
    const rows = await card.getByRole('row').allInnerTexts();
    assert.equal(rows.length, 31);
    const counts = rows.slice(1).map((row) => Number(row.split('\t').at(-1).replaceAll(',', '')));
    const sum = counts.reduce((all, count) => all + count, 0);
    assert.match(says, new RegExp(`^${sum.toLocaleString('en')} events .*: ${Math.max(...counts).toLocaleString('en')}\\.$`));
    // Each day has its bar: the highest is as high as the chart, one without events has none.
    const heights = await card.locator('rect').evaluateAll((bars) => bars.map((bar) => Number(bar.getAttribute('height'))));
    const drawn = heights.filter((_, index) => index % 2 === 0);
    assert.deepEqual(drawn.map((height) => height > 0), counts.map((count) => count > 0));
    await fine(page, 'overview-activity');
  });

  const slug = `rocket-${Date.now()}`;
  let before;
  const entries = (count) => page.getByRole('main').getByText(`${count} entries`, { exact: true }).waitFor();
  await check('a refusal stands at its field', async () => {
    requests.length = 0;
    await page.getByRole('link', { name: 'Projects' }).click();
    await page.getByRole('grid').waitFor();
    await settled(page);
    assert.ok(requests.length <= 2, requests.join());
    await fine(page, 'projects');
    before = parseInt(await page.getByRole('main').getByText(/^\d+ entries$/).innerText());
    await page.getByRole('button', { name: 'New project' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name', { exact: true }).fill(`Rocket ${slug}`);
    await dialog.getByLabel('Short name').fill('No spaces allowed!');
    await dialog.getByRole('button', { name: 'New project' }).click();
    await page.locator('[data-invalid]').first().waitFor();
    await fine(page, 'projects-refused');
    await dialog.getByLabel('Short name').fill(slug);
    await dialog.getByRole('button', { name: 'New project' }).click();
    await page.getByText(`Rocket ${slug} was created.`).waitFor();
  });

  await check('projects are counted, and sorted by creation or by name', async () => {
    await entries(before + 1);
    const order = async (text) => {
      await page.getByRole('button', { name: /^By / }).click();
      await page.getByRole('option', { name: text }).click();
    };
    await order('By name');
    await page.getByRole('row').nth(2).getByText('project-10', { exact: true }).waitFor();
    await page.getByRole('columnheader', { name: 'Name' }).and(page.locator('[aria-sort=ascending]')).waitFor();
    await fine(page, 'projects-by-name');
    await order('By creation');
    await page.getByRole('row').nth(2).getByText('project-2', { exact: true }).waitFor();
  });

  await check('the list scrolls to its end, where the new project is', async () => {
    for (let turn = 0; turn < 60; turn++) {
      if (await page.getByText(slug, { exact: true }).first().isVisible()) break;
      await page.mouse.wheel(0, 4000);
      await page.waitForTimeout(100);
    }
    await page.getByText(slug, { exact: true }).first().waitFor();
    await shoot(page, 'projects-end');
  });

  await check('a deleted project comes back by undo', async () => {
    const row = page.getByRole('row').filter({ hasText: slug });
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Delete' }).click();
    await page.getByText(`Rocket ${slug} was deleted.`).waitFor();
    await row.waitFor({ state: 'detached' });
    await entries(before);
    await shoot(page, 'projects-undo');
    await takeBack(page, `Rocket ${slug} was deleted.`);
    await page.getByText('Taken back.').waitFor();
    await row.waitFor();
  });

  await check('archive and unarchive', async () => {
    const row = page.getByRole('row').filter({ hasText: slug });
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Archive' }).click();
    await row.getByText('Archived').waitFor();
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Unarchive' }).click();
    await row.getByText('Active').waitFor();
  });

  await check('an undo that comes too late says so', async () => {
    const row = page.getByRole('row').filter({ hasText: slug });
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Archive' }).click();
    await row.getByText('Archived').waitFor();
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: 'Unarchive' }).click();
    await row.getByText('Active').waitFor();
    await takeBack(page, 'was archived');
    await page.getByText(/^It could not be taken back\. \S/).waitFor();
    await fine(page, 'projects-undo-late');
  });

  await check('rename, by keyboard alone', async () => {
    const row = page.getByRole('row').filter({ hasText: slug });
    await row.focus();
    await page.keyboard.press('Enter');
    await page.keyboard.press('Enter');
    await page.getByRole('menuitem', { name: 'Rename' }).waitFor();
    await page.keyboard.press('Enter');
    const name = page.getByRole('dialog').getByLabel('Name', { exact: true });
    await name.waitFor();
    await page.keyboard.press('Control+A');
    await page.keyboard.type(`Glider ${slug}`);
    await page.keyboard.press('Enter');
    await page.getByText('Saved.').waitFor();
    await page.getByText(`Glider ${slug}`).first().waitFor();
    assert.deepEqual(await violations(page), []);
  });

  await check('another window sees it by the feed', async () => {
    const other = await open(browser, { code });
    await other.page.goto(page.url());
    await other.page.getByRole('grid').waitFor();
    await other.page.getByText('Live', { exact: true }).waitFor();
    const first = other.page.getByRole('row').nth(1);
    const before = await first.innerText();
    await page.evaluate(() => window.scrollTo(0, 0));
    const row = page.getByRole('row').nth(1);
    const archived = before.includes('Archived');
    await row.getByRole('button').click();
    await page.getByRole('menuitem', { name: archived ? 'Unarchive' : 'Archive', exact: true }).click();
    await first.getByText(archived ? 'Active' : 'Archived').waitFor();
    assert.deepEqual(other.wrong, []);
    await other.context.close();
  });

  await check('nothing went wrong, and nobody else was asked', async () => assert.deepEqual(wrong, []));
  const addresses = { overview: page.url().replace(/\/projects$/, ''), projects: page.url(), home: `${url}/console/` };

  await check('signing out', async () => {
    await page.getByRole('button', { name: /^Account/ }).click();
    await page.getByRole('menuitem', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    await fine(page, 'signed-out');
    await context.close();
  });

  await eachLook(browser, code, addresses, {
    more: async (page, look, { width }) => {
      if (!width) return;
      await page.getByRole('button', { name: 'Open navigation' }).click();
      await page.getByRole('dialog').waitFor();
      await fine(page, `drawer-${look}`);
    },
  });
} finally {
  await browser.close();
}
