// The foundation in a browser: sign-in, both first screens, a project's whole way, axe on each page.
// CONSOLE_URL says where; CONSOLE_CODE and CONSOLE_OTHER_CODE are codes of two people.
import assert from 'node:assert/strict';
import { launch, open, settled, shoot, url, violations } from './browser.mjs';

const code = process.env.CONSOLE_CODE ?? 'ada@example.com';
const used = process.env.CONSOLE_USED_CODE ?? 'wrong';
const browser = await launch();
let checks = 0;
async function check(name, run) {
  const started = Date.now();
  await run();
  checks++;
  console.log(`ok ${name} (${Date.now() - started} ms)`);
}

try {
  await check('a code that does not count says so', async () => {
    const { page, context, wrong } = await open(browser);
    await page.goto(`${url}/console/#code=${used}`);
    await page.getByRole('heading', { name: 'This link was used already' }).waitFor();
    assert.equal(new URL(page.url()).hash, '');
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'sign-in-used');
    // The status of the refused code is all that the console logs.
    assert.deepEqual(wrong.filter((text) => !text.includes('401')), []);
    await context.close();
  });

  const { page, context, wrong, requests } = await open(browser, { code });

  await check('signing in leaves nothing in the address or the storage', async () => {
    await page.getByRole('heading', { name: 'Organizations' }).waitFor();
    assert.equal(new URL(page.url()).hash, '');
    const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
    assert.doesNotMatch(kept, /eyJ|tnt_|example\.com/);
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'home');
  });

  await check('the overview takes two requests at most', async () => {
    await page.getByRole('main').getByRole('link', { name: /Acme/ }).click();
    await page.getByRole('heading', { name: 'Last events' }).waitFor();
    await settled(page);
    requests.length = 0;
    await page.reload();
    await page.getByRole('heading', { name: 'Last events' }).waitFor();
    await settled(page);
    assert.ok(requests.length <= 2, requests.join());
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'overview');
  });

  const slug = `rocket-${Date.now()}`;
  await check('a refusal stands at its field', async () => {
    requests.length = 0;
    await page.getByRole('link', { name: 'Projects' }).click();
    await page.getByRole('grid').waitFor();
    await settled(page);
    assert.ok(requests.length <= 2, requests.join());
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'projects');
    await page.getByRole('button', { name: 'New project' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name', { exact: true }).fill(`Rocket ${slug}`);
    await dialog.getByLabel('Short name').fill('No spaces allowed!');
    await dialog.getByRole('button', { name: 'New project' }).click();
    await page.locator('[data-invalid]').first().waitFor();
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'projects-refused');
    await dialog.getByLabel('Short name').fill(slug);
    await dialog.getByRole('button', { name: 'New project' }).click();
    await page.getByText(`Rocket ${slug} was created.`).waitFor();
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
    await shoot(page, 'projects-undo');
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.getByText(`Rocket ${slug} was restored.`).waitFor();
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
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'signed-out');
    await context.close();
  });

  for (const [name, how] of Object.entries({
    dark: { scheme: 'dark' },
    narrow: { width: 360 },
    'narrow-dark': { width: 360, scheme: 'dark' },
    german: { locale: 'de-DE' },
  })) {
    await check(`each screen: ${name}`, async () => {
      const { page, context, wrong } = await open(browser, { code, ...how });
      for (const [screen, address] of Object.entries(addresses)) {
        await page.goto(address);
        await page.locator('#main').getByRole('heading', { level: 1 }).waitFor();
        await settled(page);
        await shoot(page, `${screen}-${name}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
        assert.equal(wide, false, `${screen} is wider than the window`);
        assert.deepEqual(await violations(page), []);
      }
      if (how.width) {
        await page.getByRole('button', { name: 'Open navigation' }).click();
        await page.getByRole('dialog').waitFor();
        assert.deepEqual(await violations(page), []);
        await shoot(page, `drawer-${name}`);
      }
      assert.deepEqual(wrong, []);
      await context.close();
    });
  }
  console.log(`${checks} checks`);
} finally {
  await browser.close();
}
